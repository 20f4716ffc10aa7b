"""The rooms put together: watches, queue, reconciler. They work until the process is asked to stop, or one of them dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from unfreeze_operator.cluster import connection, watch
from unfreeze_operator.cluster.api import Api
from unfreeze_operator.cluster.executor import Delayed, Executor, Mirror
from unfreeze_operator.cluster.informer import ABSENT_SECONDS, Cache, Kind, Reflector
from unfreeze_operator.cluster.new_jobs import NewJobs
from unfreeze_operator.cluster.poller import ProgressPoller
from unfreeze_operator.cluster.queue import Queue
from unfreeze_operator.objects import views
from unfreeze_operator.objects.kueue import workload_view
from unfreeze_operator.objects.pod_groups import pod_group_view
from unfreeze_operator.objects.resources import (
    CONFIG_MAPS,
    FORMER_WORKLOADS,
    JOBS,
    NETWORK_POLICIES,
    POD_GROUPS,
    PODS,
    SERVICES,
    SUFFIXES,
    WORKLOAD_SELECTOR,
    WORKLOADS,
    Key,
    Resource,
)
from unfreeze_operator.reconcile import Caches, Reconciler
from unfreeze_operator.settings.options import Settings, TrainerImage
from unfreeze_operator.telemetry import logs
from unfreeze_operator.telemetry.health import Health
from unfreeze_operator.telemetry.job_metrics import JobCollector
from unfreeze_operator.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

KINDS: tuple[Kind[Any], ...] = (
    Kind(JOBS, views.job_view),
    Kind(SERVICES, views.service_view),
    Kind(CONFIG_MAPS, views.config_map_view),
    Kind(NETWORK_POLICIES, views.network_policy_view),
    Kind(PODS, views.pod_view),
    Kind(WORKLOADS, workload_view, WORKLOAD_SELECTOR, optional=True, former=FORMER_WORKLOADS),
    Kind(POD_GROUPS, pod_group_view, optional=True),
)

FIRST_STATUS = 12
"""So many intervals of a status the first one may wait: a control plane that makes 1,000 gangs at once is so far behind."""


async def operate(settings: Settings, api: Api, metrics: Metrics, health: Health, stop: asyncio.Event) -> None:
    """Look after FineTuneJobs until `stop` is set. A namespace that comes to be there has it set: the next process begins with it."""
    wanted = settings.namespaces
    if wanted:
        settings = replace(settings, namespaces=await watch.until_reachable(api, wanted, stop))
        if stop.is_set():
            return
    first_status = FIRST_STATUS * settings.status_interval
    known, mirrors, new_jobs, queue = _what_waits(metrics, first_status)
    poller = ProgressPoller(settings, queue.add)
    executor = Executor(api, mirrors)
    reconciler = Reconciler(
        api=api,
        caches=known,
        executor=executor,
        poller=poller,
        new_jobs=new_jobs,
        metrics=metrics,
        image=TrainerImage(settings.trainer_image, settings.trainer_pull_secrets),
        lost_pod_grace=settings.lost_pod_grace,
        gang_patience=settings.gang_patience,
        status_interval=settings.status_interval,
        network=settings.network,
        allowed=settings.allowed,
        sources=settings.sources,
        prices=settings.prices,
        first_status=first_status,
    )
    metrics.registry.register(JobCollector(known.fine_tune_jobs, poller))
    metrics.queue_depth.set_function(lambda: len(queue))
    metrics.running_pulls.set_function(lambda: len(poller))
    pages = asyncio.Lock()
    reflectors = [
        Reflector(api, kind, mirrors[kind.resource].cache, namespace, silence=settings.watch_silence, pages=pages)
        for kind in KINDS
        for namespace in settings.namespaces or (None,)
    ]
    audit = watch.Audit(api, known.fine_tune_jobs, settings.namespaces)

    async def work() -> None:
        # A reconcile that sees half of the children would make the other half again.
        for synced in [*(reflector.synced for reflector in reflectors), audit.synced]:
            await synced.wait()
        health.synced = True
        logger.info("All caches are in sync: %d jobs, %d pods.", len(known.fine_tune_jobs), len(known.pods))
        await queue.run(reconciler, settings.workers)

    async def look_for_namespaces() -> None:
        await watch.until_reachable(api, wanted, stop, settings.namespaces, ABSENT_SECONDS)
        if not stop.is_set():
            logger.warning(
                "A namespace can be looked after that could not before: this process ends, and the next one does."
            )
            stop.set()

    async with asyncio.TaskGroup() as group:
        parts = [group.create_task(reflector.run(), name=f"watch of {reflector.path}") for reflector in reflectors]
        parts.append(group.create_task(audit.run(settings.audit_interval), name="audit"))
        parts.append(group.create_task(poller.run(), name="progress"))
        parts.append(group.create_task(work(), name="workers"))
        for part in parts:
            health.watch(part)
        if settings.namespaces != wanted:
            parts.append(group.create_task(look_for_namespaces(), name="namespaces"))
        # Kopf ends on SIGTERM and SIGINT, and when one of its own tasks dies.
        await watch.run_kopf(known.fine_tune_jobs, audit, connection.load, settings, stop)
        for part in parts:
            part.cancel()


def _what_waits(metrics: Metrics, longest: float) -> tuple[Caches, dict[Resource, Mirror], NewJobs, Queue[Key]]:
    """Return empty caches, those of the children by their kind, and the queue of jobs that wait to be looked at."""

    def wake(key: Key) -> None:
        queue.add(key)

    def pods_changed(key: Key) -> None:
        new_jobs.pods_changed(key)

    known, mirrors = _caches(wake, pods_changed)
    new_jobs = NewJobs(wake, is_new=known.is_new, pods=known.pods.of, longest=longest)
    queue: Queue[Key] = Queue(_on_error(metrics), urgent=new_jobs.take_note)
    return known, mirrors, new_jobs, queue


def _caches(wake: Callable[[Key], None], pods_changed: Callable[[Key], None]) -> tuple[Caches, dict[Resource, Mirror]]:
    """Return empty caches that wake a job when something of it changes, and those of its children by their kind."""
    caches = {kind.resource: Cache[Any](wake, suffix=SUFFIXES.get(kind.resource, "")) for kind in KINDS}
    caches[PODS] = Cache[Any](pods_changed, keep=views.has_termination_message)
    caches[WORKLOADS] = Cache[Any](lambda key: wake(known.behind(key)))
    known = Caches(
        Cache(wake, place=lambda job: job.destination),
        caches[JOBS],
        caches[SERVICES],
        caches[CONFIG_MAPS],
        caches[NETWORK_POLICIES],
        caches[PODS],
        caches[WORKLOADS],
        caches[POD_GROUPS],
    )
    return known, {kind.resource: Mirror(caches[kind.resource], kind.view) for kind in KINDS}


def _on_error(metrics: Metrics) -> Callable[[Key, Exception, float], None]:
    def on_error(key: Key, error: Exception, pause: float) -> None:
        with logs.about(key):
            if isinstance(error, Delayed):
                logger.info("%s; looking again in %.1f s", error, pause)
                return
            metrics.reconcile_errors.inc()
            logger.error("The reconcile failed, trying again in %.1f s: %s", pause, error, exc_info=error)

    return on_error
