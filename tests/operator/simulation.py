"""An API server, the Job controller and the nodes in memory and in virtual time, around the operator's real reconcile.

Small on purpose: what the operator relies on, as the real ones do it (test_life.py and its like run against those).
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from tests.cluster.proxy import Call, call_of
from tests.operator.fakes import NOW, merge, pod, text
from tests.operator.world import spec
from unfreeze_api.contracts.progress import CheckpointInfo, Progress, TerminationMessage
from unfreeze_operator.cluster.api import ApiError
from unfreeze_operator.cluster.executor import Delayed, Executor, Mirror
from unfreeze_operator.cluster.informer import Cache
from unfreeze_operator.cluster.new_jobs import NewJobs
from unfreeze_operator.objects import pod_groups, views
from unfreeze_operator.objects.resources import (
    CONFIG_MAPS,
    FINE_TUNE_JOBS,
    JOBS,
    NETWORK_POLICIES,
    POD_GROUPS,
    PODS,
    SERVICES,
    SUFFIXES,
    Manifest,
    Resource,
)
from unfreeze_operator.reconcile import Caches, Reconciler
from unfreeze_operator.settings.network import ISOLATED
from unfreeze_operator.settings.options import TrainerImage
from unfreeze_operator.telemetry.metrics import Metrics

CHILDREN = (CONFIG_MAPS, SERVICES, NETWORK_POLICIES, POD_GROUPS, JOBS)
KEY = ("ns", "job")
_RUNNER = asyncio.Runner()
METRICS = Metrics()


class Server:
    """Objects by plural and name, in one namespace, with the verbs of the operator's client."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.calls: list[Call] = []
        self.interrupt: Callable[[Call, bool], None] = lambda _call, _done: None
        """Asked before a request is carried out, and after it; may raise."""
        self._numbers = itertools.count(1)

    # -- the operator's client -------------------------------------------------------------------------------

    async def create(self, path: str, manifest: Manifest) -> Manifest:
        return self._call(path, "POST", "", lambda call: self.add(call.resource, manifest))

    async def get(self, path: str) -> Manifest:
        return self._call(path, "GET", "", self._found)

    async def merge(self, path: str, change: Manifest, content_type: str = "merge") -> Manifest:
        return self._call(path, "PATCH", content_type, lambda call: self._change(call, change))

    async def apply(self, path: str, manifest: Manifest) -> Manifest:
        seen = {name: manifest["metadata"][name] for name in ("uid", "resourceVersion")}
        change = {"metadata": seen, "status": manifest["status"]}
        return self._call(path, "PATCH", "application/apply-patch+yaml", lambda call: self._change(call, change))

    async def delete(
        self, path: str, uid: str, *, version: int | None = None, now: bool = False, **_: bool
    ) -> Manifest:
        def remove(call: Call) -> Manifest:
            found = self._found(call)
            if found["metadata"]["uid"] != uid:
                raise ApiError(409, "Conflict", "the UID in the precondition does not match")
            if version is not None and found["metadata"]["resourceVersion"] != str(version):
                raise ApiError(409, "Conflict", "the ResourceVersion in the precondition does not match")
            if call.resource == "pods" and not now and found["status"]["phase"] not in ("Succeeded", "Failed"):
                found["metadata"].setdefault("deletionTimestamp", text(NOW))
                self._touch(found)
            else:
                self.remove(call.resource, call.name)
            return found

        return self._call(path, "DELETE", "", remove)

    def _call(self, path: str, method: str, content_type: str, do: Callable[[Call], Manifest]) -> Manifest:
        call = call_of(method, path, content_type, {})
        self.calls.append(call)
        self.interrupt(call, False)
        answer = _copy(do(call))
        self.interrupt(call, True)
        return answer

    def _found(self, call: Call) -> Manifest:
        found = self.objects.get((call.resource.partition("/")[0], call.name))
        if found is None:
            raise ApiError(404, "NotFound", f"{call.name} not found")
        return found

    def _change(self, call: Call, change: Manifest) -> Manifest:
        found = self._found(call)
        if change.get("metadata", {}).get("uid", found["metadata"]["uid"]) != found["metadata"]["uid"]:
            raise ApiError(409, "Conflict", "uid mismatch")
        version = change.get("metadata", {}).pop("resourceVersion", found["metadata"]["resourceVersion"])
        if version != found["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        before = _copy(found)
        if call.verb == "apply":
            found["status"] = _copy(change["status"])
        else:
            merge(found, _copy(change))
        if found != before:
            self._touch(found)
        return found

    # -- the world -------------------------------------------------------------------------------------------

    def add(self, plural: str, manifest: Manifest) -> Manifest:
        raw = _copy(manifest)
        key = plural, raw["metadata"]["name"]
        if key in self.objects:
            raise ApiError(409, "AlreadyExists", f"{key} already exists")
        raw["metadata"].setdefault("creationTimestamp", text(NOW))
        raw["metadata"]["uid"] = f"{plural}-{next(self._numbers)}"
        raw["metadata"].setdefault("labels", {})
        self.objects[key] = raw
        self._touch(raw)
        return raw

    def remove(self, plural: str, name: str) -> None:
        """Delete an object, and as the garbage collector does, what it owns."""
        gone = self.objects.pop((plural, name))
        for (kind, other), raw in list(self.objects.items()):
            owners = [owner["uid"] for owner in raw["metadata"].get("ownerReferences", ())]
            if gone["metadata"]["uid"] in owners and (kind, other) in self.objects:
                self.remove(kind, other)

    def collect(self) -> None:
        """Delete what belongs to an object that is not there, as the garbage collector does."""
        there = {raw["metadata"]["uid"] for raw in self.objects.values()} | {"somebody"}
        for (plural, name), raw in list(self.objects.items()):
            owners = [owner["uid"] for owner in raw["metadata"].get("ownerReferences", ())]
            if owners and not there & {*owners} and (plural, name) in self.objects:
                self.remove(plural, name)

    def _touch(self, raw: Manifest) -> None:
        raw["metadata"]["resourceVersion"] = str(next(self._numbers))

    def touch(self, raw: Manifest) -> None:
        self._touch(raw)

    def of(self, plural: str) -> list[Manifest]:
        return [raw for (kind, _), raw in self.objects.items() if kind == plural]

    def get_now(self, plural: str, name: str = "job") -> Manifest | None:
        return self.objects.get((plural, name))


class FakePoller:
    """What the leader at hand said last; without `said` leaders say nothing but their termination message."""

    def __init__(self) -> None:
        self.said: Progress | None = None
        self.is_silent = False

    def newest(self, *_: Any) -> Progress | None:
        return self.said

    def silent(self, *_: Any) -> bool:
        return self.is_silent

    def watch(self, *_: Any, **__: Any) -> None: ...

    def forget(self, *_: Any) -> None: ...


class Simulation:
    """One FineTuneJob, its operator and its cluster; each round takes a second."""

    def __init__(self, *, first_status: float = 0.0, served: bool = False, **options: Any) -> None:
        self.server = Server()
        self.served = served
        """Whether the server has PodGroups."""
        self._first_status = first_status
        self.now = NOW
        self.poller = FakePoller()
        self._made = itertools.count()
        self._failed: defaultdict[str, set[str]] = defaultdict(set)
        """UIDs of the pods that failed, by their Job's: the Job controller counts each, whether or not it is still there."""
        self.create(**options)
        self.restart()

    # -- a person --------------------------------------------------------------------------------------------

    def create(self, **options: Any) -> None:
        manifest = {"metadata": {"name": "job", "namespace": "ns", "generation": 1}, "spec": spec("job", **options)}
        manifest["metadata"]["creationTimestamp"] = text(self.now)
        self.server.add("finetunejobs", manifest)

    @property
    def job(self) -> Manifest | None:
        return self.server.get_now("finetunejobs")

    @property
    def status(self) -> Manifest:
        return (self.job or {}).get("status", {})

    def change(self, **change: Any) -> None:
        """Merge a change into the spec."""
        job = self.job
        assert job is not None
        merge(job["spec"], change)
        job["metadata"]["generation"] += 1
        self.server.touch(job)

    # -- the operator ----------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Start the operator anew: nothing is left of the old one."""
        caches: dict[Resource, Cache[Any]] = {
            resource: Cache(lambda _: None, suffix=SUFFIXES.get(resource, ""))
            for resource in (FINE_TUNE_JOBS, *CHILDREN)
        }
        caches[PODS] = Cache(lambda _: None, keep=views.has_termination_message)
        self._views = {
            FINE_TUNE_JOBS: views.fine_tune_job_view,
            JOBS: views.job_view,
            SERVICES: views.service_view,
            CONFIG_MAPS: views.config_map_view,
            NETWORK_POLICIES: views.network_policy_view,
            PODS: views.pod_view,
            POD_GROUPS: pod_groups.pod_group_view,
        }
        self._caches = caches
        caches[POD_GROUPS].serve(None, served=self.served)
        mirrors = {resource: Mirror(cache, self._views[resource]) for resource, cache in caches.items()}
        self._reconciler = Reconciler(
            api=self.server,
            caches=Caches(
                caches[FINE_TUNE_JOBS],
                caches[JOBS],
                caches[SERVICES],
                caches[CONFIG_MAPS],
                caches[NETWORK_POLICIES],
                caches[PODS],
                Cache(lambda _: None),
                caches[POD_GROUPS],
            ),
            executor=Executor(self.server, {r: m for r, m in mirrors.items() if r != FINE_TUNE_JOBS}),
            poller=self.poller,
            new_jobs=NewJobs(lambda _: None, is_new=lambda _: False, pods=caches[PODS].of, longest=60),
            metrics=METRICS,
            image=TrainerImage("trainer:1"),
            lost_pod_grace=60,
            gang_patience=600,
            network=ISOLATED,
            first_status=self._first_status,
            clock=lambda: self.now,
        )
        self.sync()

    def sync(self) -> None:
        """Bring the caches up to date."""
        for resource, cache in self._caches.items():
            listed = [self._views[resource](raw) for raw in self.server.of(resource.plural)]
            for view in [view for view in cache.all() if view.uid not in {known.uid for known in listed}]:
                cache.remove(view)
            for view in listed:
                cache.put(view)

    def reconcile(self) -> float | None:
        """Let the operator look at the job once; errors that it would retry after are retried in the next round."""
        try:
            return _RUNNER.run(self._reconciler(KEY))
        except (ApiError, Delayed):
            return 1.0

    # -- the cluster -----------------------------------------------------------------------------------------

    def control(self) -> None:
        """What the garbage collector and the Job controller do in a moment."""
        self.server.collect()
        job = self.server.get_now("jobs", "job-train")
        if job is None:
            return
        status = job.setdefault("status", {})
        owned = [
            p for p in self.server.of("pods") if p["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
        ]
        live = [raw for raw in owned if raw["status"]["phase"] in ("Pending", "Running")]
        before = _copy(status)
        if not status.get("conditions"):
            self._judge(job, owned, live)
        ended = bool(status.get("conditions"))
        if ended or job["spec"].get("suspend"):
            for raw in live:
                raw["metadata"].setdefault("deletionTimestamp", text(self.now))
                self.server.touch(raw)
            if not ended:
                status.pop("startTime", None)
        else:
            status.setdefault("startTime", text(self.now))
            self._fill(job, owned, live)
        status["active"] = len(live)
        if status != before:
            self.server.touch(job)

    def _judge(self, job: Manifest, owned: list[Manifest], live: list[Manifest]) -> None:
        spec_, status = job["spec"], job["status"]
        codes = {
            raw["metadata"]["uid"]: raw["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
            for raw in owned
            if raw not in live
        }
        failed = self._failed[job["metadata"]["uid"]]
        failed |= {uid for uid, code in codes.items() if code not in (0, 143)}
        status["failed"] = len(failed)
        done = {_index(raw) for raw in owned if raw["status"]["phase"] == "Succeeded"}
        status["succeeded"] = len(done)
        limit, start = spec_.get("activeDeadlineSeconds"), status.get("startTime")
        if len(done) >= spec_["completions"]:
            status["completionTime"] = text(self.now)
            self._end(status, "Complete", "CompletionsReached")
        elif 2 in codes.values():
            self._end(status, "Failed", "PodFailurePolicy")
        elif status["failed"] > spec_["backoffLimit"]:
            self._end(status, "Failed", "BackoffLimitExceeded")
        elif limit and start and self.now >= datetime.fromisoformat(start) + timedelta(seconds=limit):
            self._end(status, "Failed", "DeadlineExceeded")

    def _end(self, status: Manifest, type_: str, reason: str) -> None:
        status["conditions"] = [
            {"type": type_, "status": "True", "reason": reason, "message": "", "lastTransitionTime": text(self.now)}
        ]

    def _fill(self, job: Manifest, owned: list[Manifest], live: list[Manifest]) -> None:
        held = {_index(raw) for raw in owned if raw in live or raw["status"]["phase"] == "Succeeded"}
        for index in set(range(job["spec"]["completions"])) - held:
            raw = pod(
                index,
                "Pending",
                owner=job["metadata"]["uid"],
                name=f"job-train-{index}-{next(self._made)}",
                created=self.now,
            )
            raw["status"] |= {"conditions": [], "containerStatuses": []}
            self.server.add("pods", raw)

    def node(self) -> None:
        """What the nodes do in a moment: start what waits, end what is deleted."""
        for raw in self.pods():
            phase, deleted = raw["status"]["phase"], "deletionTimestamp" in raw["metadata"]
            if deleted and phase in ("Pending", "Running"):
                self.end(raw, 143)
            elif deleted:
                self.server.remove("pods", raw["metadata"]["name"])
            elif phase == "Pending":
                raw["status"] |= {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
                self.server.touch(raw)

    def end(self, raw: Manifest, code: int) -> None:
        """End a pod's container."""
        phase = "Failed" if code else "Succeeded"
        at = CheckpointInfo(step=5, time=NOW)
        said = TerminationMessage(
            outcome="Stopped" if code == 143 else "Failed" if code else "Succeeded",
            reason="Completed" if code == 0 else "Stopped" if code == 143 else "WorkerFailed",
            exit_code=code,
            checkpoint=at,
            progress=Progress(
                activity="Training" if code else "Done",
                step=5,
                total_steps=5,
                percent=100,
                checkpoint=at,
                results={} if code else {"test.accuracy": 0.9},
            ),
        )
        ended = {"exitCode": code, "message": said.to_termination_log(), "finishedAt": text(self.now)}
        raw["status"] |= {"phase": phase, "conditions": [], "containerStatuses": [{"state": {"terminated": ended}}]}
        self.server.touch(raw)

    def pods(self) -> list[Manifest]:
        """Return the pods of Jobs; others may be there."""
        return [
            raw for raw in self.server.of("pods") if raw["metadata"]["ownerReferences"][0]["uid"].startswith("jobs-")
        ]

    def running(self) -> list[Manifest]:
        return [raw for raw in self.pods() if raw["status"]["phase"] == "Running"]

    def round(self) -> None:
        """Let a second pass: the operator with all news, then the cluster."""
        self.sync()
        self.reconcile()
        self.control()
        self.node()
        self.now += timedelta(seconds=1)

    def until(self, condition: Callable[[], Any], most: int = 60) -> None:
        for _ in range(most):
            if condition():
                return
            self.round()
        raise AssertionError(f"not within {most} rounds; status {self.status}")


def _copy(raw: Any) -> Any:
    return json.loads(json.dumps(raw))


def _index(raw: Manifest) -> int:
    return int(raw["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])
