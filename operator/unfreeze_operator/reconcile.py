"""One reconcile: caches -> plan -> actions -> one status write -> events. Everything that matters is in the API."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import aiohttp
from pydantic import ValidationError

from unfreeze_api.contracts.progress import Progress
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_api.grammar import former
from unfreeze_api.grammar.reading import causes
from unfreeze_api.job import known_part, parse_spec
from unfreeze_api.spec.job import FineTuneJobSpec
from unfreeze_operator.cluster.api import Api, ApiError
from unfreeze_operator.cluster.backoff import backoff
from unfreeze_operator.cluster.executor import Delayed, Executor, Refused, Unavailable
from unfreeze_operator.cluster.informer import Cache
from unfreeze_operator.cluster.new_jobs import NewJobs
from unfreeze_operator.cluster.poller import ProgressPoller
from unfreeze_operator.decisions.events import event, notes
from unfreeze_operator.decisions.plan import Plan, plan
from unfreeze_operator.objects.actions import steps
from unfreeze_operator.objects.kueue import WorkloadView
from unfreeze_operator.objects.packing import unpack
from unfreeze_operator.objects.pod_groups import PodGroupView
from unfreeze_operator.objects.resources import EVENTS, FINE_TUNE_JOBS, Key, Manifest
from unfreeze_operator.objects.views import (
    ConfigMapView,
    FineTuneJobView,
    JobView,
    NetworkPolicyView,
    PodView,
    ServiceView,
    fine_tune_job_view,
)
from unfreeze_operator.observed.context import Children, Context, sharing
from unfreeze_operator.policies.finished import is_finished
from unfreeze_operator.settings.allowed import Allowed
from unfreeze_operator.settings.network import Network
from unfreeze_operator.settings.options import Settings, TrainerImage
from unfreeze_operator.settings.prices import NO_PRICES, Prices
from unfreeze_operator.settings.sources import NOTHING, Sources
from unfreeze_operator.status.budget import wire
from unfreeze_operator.status.build import delayed, held, refused, urgent, worth_writing
from unfreeze_operator.status.said import missing_pods
from unfreeze_operator.status.training import leader
from unfreeze_operator.telemetry.logs import about
from unfreeze_operator.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

EVENT_TRIES = 3
EVENT_PAUSES = (0.1, 1.0)
"""First and longest pause in seconds between two tries to post an event."""
CLOCKS = timedelta(seconds=1)
"""By so much the operator's clock may be behind the API server's."""
_FINAL = (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)
"""Answers that another try does not change."""


@dataclass(frozen=True, slots=True)
class Caches:
    """All that the operator knows of the cluster."""

    fine_tune_jobs: Cache[FineTuneJobView]
    jobs: Cache[JobView]
    services: Cache[ServiceView]
    config_maps: Cache[ConfigMapView]
    network_policies: Cache[NetworkPolicyView]
    pods: Cache[PodView]
    workloads: Cache[WorkloadView]
    pod_groups: Cache[PodGroupView]

    def children(self, job: FineTuneJobView) -> Children:
        """Return the objects that carry the job's label."""
        key, jobs = job.key, self.jobs.of(job.key)
        seen = self.pod_groups.is_served(job.namespace)
        return Children.of(
            job.uid,
            jobs,
            self.services.of(key),
            self.config_maps.of(key),
            self.network_policies.of(key),
            pods=self.pods.of(key),
            departed=self.pods.departed(key),
            workloads=[workload for child in jobs for workload in self.workloads.of((job.namespace, child.name))],
            pod_groups=self.pod_groups.of(key) if seen else None,
        )

    def behind(self, workload: Key) -> Key:
        """Return the FineTuneJob of a Workload, whose key names the child Job; nobody's key before that is known."""
        child = self.jobs.named(workload)
        return child.key if child is not None else workload

    def beside(self, job: FineTuneJobView) -> list[str]:
        """Return the names of the other jobs of its namespace that have not ended and write to the same place."""
        others = self.fine_tune_jobs.beside(job)
        if not others or is_finished(_stored_status(job)):
            return []
        return [other.name for other in others if not is_finished(_stored_status(other))]

    def is_new(self, key: Key) -> bool:
        """Whether a job waits for its Job, and nothing was said of it yet."""
        job = next(iter(self.fine_tune_jobs.of(key)), None)
        return job is not None and unpack(job.status) == b"{}" and not self.jobs.of(key)


class Reconciler:
    """Brings one job at a time closer to what its spec says.

    Parameters
    ----------
    api, caches, executor, poller, new_jobs, metrics
        The rooms that it connects.
    image
        Trainer image when a template names none, and what it is pulled with.
    lost_pod_grace, gang_patience, network, status_interval, allowed, sources
        See Settings.
    first_status
        For how many seconds at most, from when its Job was made, the first status of a job waits for the scheduler's word on
        each of its pods, and for the pods of other new jobs; where the Job controller has none made, until that is worth a word.
    clock
        The time.
    """

    def __init__(
        self,
        *,
        api: Api,
        caches: Caches,
        executor: Executor,
        poller: ProgressPoller,
        new_jobs: NewJobs,
        metrics: Metrics,
        image: TrainerImage,
        lost_pod_grace: float,
        gang_patience: float,
        network: Network,
        status_interval: float = Settings.status_interval,
        allowed: Allowed = Settings.allowed,
        sources: Sources = NOTHING,
        prices: Prices = NO_PRICES,
        first_status: float = 0.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._caches = caches
        self._executor = executor
        self._poller = poller
        self._new_jobs = new_jobs
        self._metrics = metrics
        self._image = image
        self._lost_pod_grace = lost_pod_grace
        self._gang_patience = gang_patience
        self._network = network
        self._status_interval = status_interval
        self._first_status = first_status
        self._allowed, self._sources, self._prices = allowed, sources, prices
        self._clock = clock
        self._instance = socket.gethostname()
        self._unsure: dict[Key, tuple[str, FineTuneJobStatus]] = {}
        """UID of a job and the status before a write whose answer was lost: it may be seen late that it was done."""
        self._written: dict[Key, tuple[str, datetime]] = {}
        """UID of each job that runs, and when its status was written last."""

    async def __call__(self, key: Key) -> float | None:
        """Reconcile one job; return after how many seconds to look at it again, or None."""
        with about(key), self._metrics.reconcile_seconds.time():
            job = next(iter(self._caches.fine_tune_jobs.of(key)), None)
            if job is None:
                self._poller.forget(key)
                self._caches.pods.forget(key)
                self._new_jobs.done(key)
                self._written.pop(key, None)
                self._unsure.pop(key, None)
                return None
            return await self._reconcile(job)

    async def _reconcile(self, job: FineTuneJobView) -> float | None:
        now = self._clock()
        old, children, gone = _stored_status(job), self._caches.children(job), self._caches.pods.departed(job.key)
        raw = json.loads(unpack(job.spec))
        try:
            spec = parse_spec(raw)
        except ValidationError as error:
            known = known_part(raw, error)
            begun = is_finished(old) or children.job is not None or children.config_map is not None
            if known is None or not begun:
                self._poller.forget(job.key)
                if not is_finished(old) and not job.deleting:
                    await self._write(job, old, _unreadable(job, old, now, error, known), children)
                return None
            spec = known
        first = leader(children.pods)
        uid, before = self._unsure.get(job.key, (job.uid, old))
        if uid == job.uid and before != old:  # it was done after all
            del self._unsure[job.key]
            self._metrics.transition(job, before, old, children, now)
        context = Context(
            job,
            spec,
            old,
            children,
            now,
            self._image,
            self._lost_pod_grace,
            self._gang_patience,
            self._network,
            (*former.warnings(raw, FineTuneJobSpec), *sharing(self._caches.beside(job))),
            self._allowed,
            self._sources,
            prices=self._prices,
            silent=first is not None and first.live and self._poller.silent(job.key, first.uid),
        )
        progress = self._poller.newest(job.key, first.uid) if first is not None else None
        asked, status, problem = await self._settle(context, progress)
        # Among many new jobs the children of all come first. What is said of one then says more.
        later = old.phase is None and bool(asked.actions) and status is asked.status and problem is None
        pause = 0.0
        if not later and status is not None and worth_writing(old, status, context.accelerators):
            quiet = status is asked.status and problem is None
            pause = self._until_first(status, context) if quiet and old.phase is None else 0.0
            pause = pause or (0.0 if urgent(old, status) else self._pause(job, children, now))
            if not pause:
                self._new_jobs.done(job.key)
                await self._write(job, old, status, context.children)
        if first is not None and first.live and first.ip and not job.deleting and not is_finished(old):
            self._poller.watch(job.key, first.uid, first.ip, ready=first.ready)
        else:
            self._poller.forget(job.key)
        if problem is not None:
            raise problem
        if pause:  # what a pod that is gone has said is not written yet
            return pause if asked.requeue_after is None else min(pause, asked.requeue_after)
        # Pods of an earlier Job, of this job or of one that had its name, have nothing to say to this one; none has after the end.
        heard = children.job is not None or is_finished(old)
        self._caches.pods.forget(job.key, gone if heard else children.departed)
        return 0.0 if later else asked.requeue_after

    async def _settle(
        self, context: Context, progress: Progress | None
    ) -> tuple[Plan, FineTuneJobStatus | None, Exception | None]:
        """Plan and carry it out; return with the plan the status to write, and what to retry for."""
        asked = plan(context, progress)
        self._report(asked)
        try:
            return asked, *await self._execute(context.job, context.status, asked, context.now)
        except Unavailable as error:
            logger.warning("The Job is made without a PodGroup, which is refused here: %s", error)
        children = replace(self._caches.children(context.job), sees_groups=False)
        return await self._settle(replace(context, children=children), progress)

    def _report(self, asked: Plan) -> None:
        for problem in asked.problems:
            self._metrics.plan_errors.labels(problem.part).inc()
            logger.error("The plan is made without %s: %s", problem.part, problem.error, exc_info=problem.error)

    def _pause(self, job: FineTuneJobView, children: Children, now: datetime) -> float:
        """Return for how many seconds the status of a job has to wait, so that its trainers cannot have it written at will.

        A job without pods is not held up: of what has ended nothing must be lost to what comes next.
        """
        uid, written = self._written.get(job.key, ("", now))
        if uid != job.uid or not children.live_pods:
            return 0.0
        left = self._status_interval - (now - written).total_seconds()
        return min(self._status_interval, max(0.0, left))  # a clock that is put back holds nothing up

    def _until_first(self, status: FineTuneJobStatus, context: Context) -> float:
        """Return for how many seconds the first status of a job has to wait: with the scheduler's word it is the only one."""
        child, pods, nodes = context.children.job, context.children.pods, context.spec.distribution.num_nodes
        if status.phase != "Pending" or child is None:
            return 0.0
        self._new_jobs.wait(context.job.key, nodes)
        if not self._new_jobs.busy and sum(pod.scheduler_knows for pod in pods) >= nodes:
            return 0.0
        longest = child.created + timedelta(seconds=self._first_status)
        # Pods that are not made at all are perhaps refused, by a quota for one: people want to know of that soon.
        missing = missing_pods(context)
        until = min(longest, missing[1]) if missing is not None else longest
        # Times of creation are whole seconds; where the clocks disagree by more, nothing waits.
        return max(0.0, (until - context.now).total_seconds()) if context.now >= child.created - CLOCKS else 0.0

    async def _execute(
        self, job: FineTuneJobView, old: FineTuneJobStatus, asked: Plan, now: datetime
    ) -> tuple[FineTuneJobStatus | None, Exception | None]:
        """Carry out a plan; return the status to write, and what to retry for."""
        status = asked.status
        try:
            for step in steps(asked.actions):
                await _all(self._executor.execute(action) for action in step)
        except Refused as error:
            # Nothing but another spec, which wakes the job up, can help.
            return status and refused(job, old, now, "Refused", str(error)), None
        except Delayed as error:
            if error.reason != "Changed" and status is not None:
                status = delayed(status, now, error.reason, str(error), old=old)
            return status, error
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            return status, error
        return status, None

    async def _write(
        self, job: FineTuneJobView, old: FineTuneJobStatus, new: FineTuneJobStatus, children: Children
    ) -> None:
        body: Manifest = {
            "apiVersion": FINE_TUNE_JOBS.api_version,
            "kind": FINE_TUNE_JOBS.kind,
            # With UID and version, the status reaches neither another job of the same name nor one that has gone on: to a server
            # that is behind, and to a leader that was held up, a job still runs that has long ended.
            "metadata": {
                "name": job.name,
                "namespace": job.namespace,
                "uid": job.uid,
                "resourceVersion": str(job.version),
            },
            "status": wire(new),
        }
        path = FINE_TUNE_JOBS.path(job.namespace, job.name, "status")
        # Events first: when the write, or its answer, is lost, the next try posts the same, which makes no second event.
        for note in notes(old, new, children.job):
            await self._post(event(job, note, self._clock(), self._instance))
        try:
            raw = await self._api.apply(path, body)
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND or (
                error.status in (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY)
                and "uid" in error.message.replace(f'"{job.name}"', "").lower()
            ):
                logger.info("FineTuneJob %s is gone.", job.name)
                self._caches.fine_tune_jobs.remove(job)
                return
            if error.status == HTTPStatus.CONFLICT:
                raise Delayed("Changed", f"FineTuneJob {job.name} has changed meanwhile") from error
            raise
        except (aiohttp.ClientError, TimeoutError):
            self._unsure[job.key] = job.uid, old
            raise
        self._unsure.pop(job.key, None)
        self._metrics.status_writes.inc()
        self._written[job.key] = job.uid, self._clock()
        if is_finished(new):
            del self._written[job.key]
        _assert_kept(body["status"], raw.get("status", {}))
        self._caches.fine_tune_jobs.put(fine_tune_job_view(raw))
        self._metrics.transition(job, old, new, children, self._clock())

    async def _post(self, manifest: Manifest) -> None:
        """Post an event, in a few tries. It is news, not state: losing one must not hold the job up."""
        for tries in range(1, EVENT_TRIES + 1):
            try:
                await self._api.create(EVENTS.path(manifest["metadata"]["namespace"]), manifest)
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                if getattr(error, "reason", "") == "AlreadyExists":  # posted already
                    return
                if tries == EVENT_TRIES or getattr(error, "status", None) in _FINAL:
                    logger.warning("The event %s could not be posted: %s", manifest["reason"], error)
                    return
                await asyncio.sleep(backoff(tries, error, bounds=EVENT_PAUSES))
            else:
                return


async def _all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for all of them; raise the first one's error."""
    for result in await asyncio.gather(*works, return_exceptions=True):
        if result is not None:
            raise result


def _stored_status(job: FineTuneJobView) -> FineTuneJobStatus:
    try:
        return FineTuneJobStatus.read(unpack(job.status))
    except ValidationError:  # somebody else wrote it: it is computed again
        logger.warning("The status of %s cannot be read and is replaced.", job.name)
        return FineTuneJobStatus()


def _assert_kept(sent: Manifest, stored: Manifest, path: str = "status") -> None:
    """Complain aloud when the schema has pruned a field: an old CRD under a new operator loses what it shows."""
    for name, value in sent.items():
        if name not in stored:
            raise PrunedError(f"{path}.{name} is not in the CRD that the cluster has: update the CRD")
        if isinstance(value, dict) and isinstance(stored[name], dict):
            _assert_kept(value, stored[name], f"{path}.{name}")


class PrunedError(Exception):
    """The API server dropped a field of the status."""


def _unreadable(
    job: FineTuneJobView, old: FineTuneJobStatus, now: datetime, error: ValidationError, known: FineTuneJobSpec | None
) -> FineTuneJobStatus:
    if known is None:
        advice = "stored under another version of the CRD: delete and recreate the job"
        return refused(job, old, now, "InvalidSpec", f"{causes(error, 'spec')} ({advice})")
    advice = (
        "this operator is older than the CRD: upgrade it, and the job begins; or create the job without these fields"
    )
    return held(job, old, now, "InvalidSpec", f"{causes(error, 'spec')} ({advice})")
