"""The operator's process: puts the rooms together, and ends as soon as one of them dies."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

import click

from unfreeze_operator import connection, logs, views, watch
from unfreeze_operator.api import Api
from unfreeze_operator.executor import Delayed, Executor, Mirror
from unfreeze_operator.health import Health
from unfreeze_operator.informer import Cache, Reflector
from unfreeze_operator.job_metrics import JobCollector
from unfreeze_operator.metrics import Metrics
from unfreeze_operator.network import DNS, EgressRule, Network, Peer, parse
from unfreeze_operator.progress import Puller
from unfreeze_operator.queue import Queue
from unfreeze_operator.reconcile import Caches, Reconciler
from unfreeze_operator.resources import (
    CONFIG_MAPS,
    JOBS,
    NETWORK_POLICIES,
    PODS,
    SERVICES,
    Key,
    Manifest,
    Resource,
)
from unfreeze_operator.settings import Settings, TrainerImage

logger = logging.getLogger(__name__)

API_DEPTH = 10_000
"""How deep the JSON of an object may be nested for the API server to take it (encoding/json of Go)."""

VIEWS: dict[Resource, Callable[[Manifest], Any]] = {
    JOBS: views.job_view,
    SERVICES: views.service_view,
    CONFIG_MAPS: views.config_map_view,
    NETWORK_POLICIES: views.network_policy_view,
    PODS: views.pod_view,
}


async def run(settings: Settings) -> None:
    """Run the operator until it is asked to stop, or until a part of it dies."""
    async with Api(await connection.load(), connection.load) as api:
        metrics = Metrics()
        queue: Queue[Key] = Queue(_on_error(metrics))
        caches = {resource: Cache[Any](queue.add) for resource in VIEWS}
        caches[PODS] = Cache[Any](queue.add, keep=views.has_last_words)
        known = Caches(
            Cache(queue.add),
            caches[JOBS],
            caches[SERVICES],
            caches[CONFIG_MAPS],
            caches[NETWORK_POLICIES],
            caches[PODS],
        )
        puller = Puller(settings, queue.add)
        mirrors = {resource: Mirror(cache, VIEWS[resource]) for resource, cache in caches.items()}
        executor = Executor(api, mirrors)
        reconciler = Reconciler(
            api=api,
            caches=known,
            executor=executor,
            puller=puller,
            metrics=metrics,
            image=TrainerImage(settings.trainer_image, settings.trainer_pull_secrets),
            lost_pod_grace=settings.lost_pod_grace,
            network=settings.network,
        )
        metrics.registry.register(JobCollector(known.fine_tune_jobs, puller))
        metrics.queue_depth.set_function(lambda: len(queue))
        metrics.running_pulls.set_function(lambda: len(puller))
        health = Health(metrics)
        reflectors = [
            Reflector(api, resource, VIEWS[resource], cache, namespace)
            for resource, cache in caches.items()
            for namespace in settings.namespaces or (None,)
        ]
        audit = watch.Audit(api, known.fine_tune_jobs, settings.namespaces)
        stop = asyncio.Event()

        async def work() -> None:
            # A reconcile that sees half of the children would make the other half again.
            for synced in [*(reflector.synced for reflector in reflectors), audit.synced]:
                await synced.wait()
            health.synced = True
            logger.info("All caches are in sync: %d jobs, %d pods.", len(known.fine_tune_jobs), len(known.pods))
            await queue.run(reconciler, settings.workers)

        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(health.serve(settings.http_host, settings.http_port), name="http server")]
            await watch.wait_for_crd(api)
            parts += [group.create_task(reflector.run(), name=f"watch of {reflector.path}") for reflector in reflectors]
            parts.append(group.create_task(audit.run(settings.audit_interval), name="audit"))
            parts.append(group.create_task(puller.run(), name="progress"))
            parts.append(group.create_task(work(), name="workers"))
            for part in parts:
                health.watch(part)
            # Kopf ends on SIGTERM and SIGINT, and when one of its own tasks dies.
            await watch.run_kopf(known.fine_tune_jobs, audit, connection.load, settings.namespaces, stop)
            for part in parts:
                part.cancel()


def _on_error(metrics: Metrics) -> Callable[[Key, Exception, float], None]:
    def on_error(key: Key, error: Exception, pause: float) -> None:
        with logs.about(key):
            if isinstance(error, Delayed):
                logger.info("%s; looking again in %.1f s", error, pause)
                return
            metrics.reconcile_errors.inc()
            logger.error("The reconcile failed, trying again in %.1f s: %s", pause, error, exc_info=error)

    return on_error


class Json(click.ParamType[Any]):
    """Parts of a NetworkPolicy as JSON."""

    name = "json"

    def __init__(self, kind: type[Peer | EgressRule]) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the parts, or tell what is wrong with them."""
        try:
            return parse(self._kind, value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(context_settings={"auto_envvar_prefix": "UNFREEZE_OPERATOR", "show_default": True})
@click.option("--namespace", "namespaces", multiple=True, help="Namespace to look after, repeatable. Default: all.")
@click.option("--trainer-image", required=True, help="Image of the trainer, for jobs whose template names none.")
@click.option(
    "--trainer-pull-secret",
    "trainer_pull_secrets",
    multiple=True,
    help="Secret in a job's namespace that images are pulled with when its template names none, repeatable.",
)
@click.option("--http-host", default=Settings.http_host, help="Address of /metrics, /healthz and /readyz.")
@click.option("--http-port", default=Settings.http_port, help="Port of /metrics, /healthz and /readyz.")
@click.option("--workers", default=Settings.workers, help="Jobs that are reconciled at the same time.")
@click.option(
    "--progress-interval", default=Settings.progress_interval, help="Seconds between looks at a job's progress."
)
@click.option(
    "--lost-pod-grace",
    default=Settings.lost_pod_grace,
    help="Seconds beyond its grace period after which a pod on a dead node is given up; 0: never.",
)
@click.option(
    "--metrics-from",
    type=Json(Peer),
    default="[]",
    help="Who may read the trainers' metrics beside the operator: peers of a NetworkPolicy, a JSON list.",
)
@click.option(
    "--egress",
    type=Json(EgressRule),
    default=None,
    show_default="DNS of the cluster",
    help="What trainers may reach beside their gang: egress rules of a NetworkPolicy, a JSON list; [{}] is anything.",
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", help="Least level."
)
def main(log_level: str, metrics_from: tuple[Peer, ...], egress: tuple[EgressRule, ...] | None, **options: Any) -> None:
    """Run FineTuneJobs on the cluster of KUBECONFIG, or of the pod that this process runs in."""
    logs.configure(log_level)
    # Where a schema leaves a field open, one object that nobody could read would end every watch for ever.
    sys.setrecursionlimit(2 * API_DEPTH)
    network = Network(connection.own_namespace(), metrics_from, (DNS,) if egress is None else egress)
    try:
        asyncio.run(run(Settings(network=network, **options)))
    except* Exception as errors:
        logger.critical("The operator ends: %s", errors.exceptions[0], exc_info=errors.exceptions[0])
        sys.exit(1)


if __name__ == "__main__":
    main()
