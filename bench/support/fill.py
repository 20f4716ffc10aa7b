"""Finished and running jobs, with children and pods as operator, controllers and a node would have left them.

One of each is written through the API; the others are copies of it, put into etcd as the API server would have stored
them: 60,000 objects in a minute.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

import aiohttp

from bench.support.leaders import address, progress
from bench.support.plane import Json, children, fine_tune_job
from tests.cluster.api import Api
from tests.operator.process import IMAGE
from unfreeze_api.contracts.names import INDEX_ANNOTATION
from unfreeze_api.contracts.progress import PhaseResult, Progress
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_api.job import parse_spec
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.resources import CONTAINER, FINE_TUNE_JOBS, JOBS, PODS
from unfreeze_operator.objects.views import fine_tune_job_view, job_view, pod_view
from unfreeze_operator.observed.context import Children, Context
from unfreeze_operator.settings.options import TrainerImage
from unfreeze_operator.status.budget import wire

NODES = 4
NODE = "room"
NOW = datetime.now(UTC).replace(microsecond=0)
FINISHED, RUNNING = "job-{:05}", "now-{:05}"
"""Names of jobs."""
BATCH = 100
"""Objects of a transaction; etcd takes up to 128 operations and 1.5 MB."""
FOLDERS = {
    FINE_TUNE_JOBS.kind: "unfreeze.dev/finetunejobs",
    "ConfigMap": "configmaps",
    "Service": "services/specs",
    "NetworkPolicy": "networkpolicies",
    "Job": "jobs",
    "Pod": "pods",
}
"""Where the API server keeps each kind in etcd."""
_UID = r"\b[0-9a-f]{8}(-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\b"


class Filler:
    """Adds jobs to a namespace.

    Parameters
    ----------
    api
        A client of the API server.
    etcd
        Address of the API server's etcd.
    namespace
        Where the jobs go.
    """

    def __init__(self, api: Api, etcd: str, namespace: str) -> None:
        self._api = api
        self._etcd = etcd
        self._namespace = namespace
        self._templates: dict[str, list[Json]] = {}

    async def fill(self, finished: range, running: range) -> None:
        """Add jobs by their numbers; a running one's leader has the address of its number."""
        if not self._templates:
            self._templates = {FINISHED: await self._finished(), RUNNING: await self._running()}
            finished, running = finished[1:], running[1:]
        copies = (
            copy
            for form, numbers in ((FINISHED, finished), (RUNNING, running))
            for number in numbers
            for copy in self._copies(form, number)
        )
        async with aiohttp.ClientSession(self._etcd) as session:
            while puts := list(islice(copies, BATCH)):
                async with session.post("/v3/kv/txn", json={"success": puts}) as response:
                    response.raise_for_status()

    async def _finished(self) -> list[Json]:
        job = await self._api.post(FINE_TUNE_JOBS.path(self._namespace), fine_tune_job(FINISHED.format(0), nodes=NODES))
        made, child = await self._children(job, _complete())
        return [await self._tell(job, Children(job=job_view(child)), _done()), *made]

    async def _running(self) -> list[Json]:
        job = await self._api.post(FINE_TUNE_JOBS.path(self._namespace), fine_tune_job(RUNNING.format(0), nodes=NODES))
        made, child = await self._children(job, _active())
        pods = [await _pod(self._api, child, index) for index in range(NODES)]
        told = await self._tell(job, Children(job=job_view(child), pods=tuple(map(pod_view, pods))), progress(100))
        return [told, *made, *pods]

    def _copies(self, form: str, number: int) -> Iterator[Json]:
        """Yield what puts copies of a job and of all that belongs to it into etcd."""
        own: dict[str, Json] = {}
        for template in self._templates[form]:
            text = json.dumps(template).replace(form.format(0), form.format(number))
            text = text.replace(f'"{address(0)}"', f'"{address(number)}"')
            raw: Json = json.loads(re.sub(_UID, rf"{number:08x}\1", text))
            if raw["kind"] == FINE_TUNE_JOBS.kind:
                own = {manifest["kind"]: manifest for _, manifest in children(raw, self._namespace)}
            elif raw["kind"] == "ConfigMap":
                raw["data"] = own["ConfigMap"]["data"]
                raw["metadata"]["annotations"] = own["ConfigMap"]["metadata"]["annotations"]
            elif raw["kind"] == "Service":
                raw["spec"]["ports"] = [
                    {**port, "targetPort": port["port"]} for port in own["Service"]["spec"]["ports"]
                ]
            key = f"/registry/{FOLDERS[raw['kind']]}/{self._namespace}/{raw['metadata']['name']}"
            yield {"requestPut": {"key": _base64(key), "value": _base64(json.dumps(raw))}}

    async def _children(self, job: Json, status: Json) -> tuple[list[Json], Json]:
        """Create a job's children and write the child Job's status; return all of them, and the Job."""
        made = [await self._api.post(path, manifest) for path, manifest in children(job, self._namespace)]
        last = made.pop()
        path = JOBS.path(self._namespace, last["metadata"]["name"], "status")
        last = await self._api.put(path, {**last, "status": status})
        return [*made, last], last

    async def _tell(self, job: Json, own: Children, told: Progress) -> Json:
        """Write the status that the operator gives a job with these children; return the job."""
        spec, now = parse_spec(job["spec"]), datetime.now(UTC)
        status = plan(
            Context(fine_tune_job_view(job), spec, FineTuneJobStatus(), own, now, TrainerImage(IMAGE)), told
        ).status
        if status is None:
            raise TypeError("a job that has not finished has a status")
        path = FINE_TUNE_JOBS.path(self._namespace, job["metadata"]["name"], "status")
        return await self._api.put(path, {**job, "status": wire(status)})


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def _pod(api: Api, job: Json, index: int) -> Json:
    """Create a running pod of a child Job."""
    template, namespace, name = job["spec"]["template"], job["metadata"]["namespace"], job["metadata"]["name"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"], "controller": True}
    metadata = {
        "name": f"{name}-{index}-abcde",
        "labels": template["metadata"]["labels"],
        "annotations": {INDEX_ANNOTATION: str(index)},
        "ownerReferences": [owner],
    }
    spec = {**template["spec"], "hostname": f"{name}-{index}", "nodeName": NODE}
    pod = await api.post(PODS.path(namespace), {"metadata": metadata, "spec": spec})
    container = {
        "name": CONTAINER,
        "image": IMAGE,
        "imageID": "sha256:0",
        "ready": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": _text(NOW)}},
    }
    ip = address(0) if index == 0 else f"10.0.{index}.1"
    status = {
        "phase": "Running",
        "startTime": _text(NOW),
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "conditions": [{"type": type_, "status": "True"} for type_ in ("PodScheduled", "ContainersReady", "Ready")],
        "containerStatuses": [container],
    }
    return await api.put(PODS.path(namespace, pod["metadata"]["name"], "status"), {**pod, "status": status})


def _active() -> Json:
    return {"active": NODES, "ready": NODES, "startTime": _text(NOW), "uncountedTerminatedPods": {}}


def _complete() -> Json:
    start, end = _text(NOW - timedelta(hours=2)), _text(NOW - timedelta(hours=1))
    return {
        "succeeded": NODES,
        "ready": 0,
        "completedIndexes": f"0-{NODES - 1}",
        "startTime": start,
        "completionTime": end,
        "uncountedTerminatedPods": {},
        "conditions": [
            {"type": type_, "status": "True", "reason": "CompletionsReached", "lastTransitionTime": end}
            for type_ in ("SuccessCriteriaMet", "Complete")
        ],
    }


def _done() -> Progress:
    phases = [
        PhaseResult(name=name, steps=3333, seconds=1200.0, trainable_parameters=10**6, metrics={"accuracy": 0.9})
        for name in ("head", "layer.5", "layer.4")
    ]
    results = {"test.accuracy": 0.91, "test.loss": 0.28}
    end = {"state": "Done", "percent": 100, "step": 10_000, "phase_index": 2, "phases": phases, "results": results}
    return progress(10_000).model_copy(update=end)


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
