"""Finished and running jobs in the API, with children and pods as operator, controllers and a node would have left them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from _leaders import address, progress
from _plane import NAME, Json, children, each, fine_tune_job

from tests.cluster.api import Api
from tests.operator.process import IMAGE
from unfreeze_api.job import parse_spec
from unfreeze_api.names import INDEX_ANNOTATION
from unfreeze_api.progress import PhaseResult, Progress
from unfreeze_api.status import FineTuneJobStatus
from unfreeze_operator.context import Children, Context
from unfreeze_operator.plan import plan
from unfreeze_operator.reconcile import wire
from unfreeze_operator.resources import CONTAINER, FINE_TUNE_JOBS, JOBS, PODS
from unfreeze_operator.settings import TrainerImage
from unfreeze_operator.views import fine_tune_job_view, job_view, pod_view

NODES = 4
NODE = "room"
NOW = datetime.now(UTC).replace(microsecond=0)


async def fill(api: Api, namespace: str, finished: range, running: range) -> None:
    """Add jobs by their numbers; a running one's leader has the address of its number."""

    async def add_finished(number: int) -> None:
        job = await api.post(FINE_TUNE_JOBS.path(namespace), fine_tune_job(NAME.format(number), nodes=NODES))
        child = await _children(api, job, namespace, _complete())
        await _tell(api, job, Children(job=job_view(child)), _done())

    async def add_running(number: int) -> None:
        job = await api.post(FINE_TUNE_JOBS.path(namespace), fine_tune_job(f"now-{number:05}", nodes=NODES))
        child = await _children(api, job, namespace, _active())
        pods = [await _pod(api, child, index, address(number)) for index in range(NODES)]
        await _tell(api, job, Children(job=job_view(child), pods=tuple(map(pod_view, pods))), progress(100))

    await each(finished, add_finished)
    await each(running, add_running)


async def _children(api: Api, job: Json, namespace: str, status: Json) -> Json:
    """Create a job's children, write the child Job's status, and return the child Job."""
    last: Json = {}
    for path, manifest in children(job, namespace):
        last = await api.post(path, manifest)
    path = JOBS.path(namespace, last["metadata"]["name"], "status")
    return await api.put(path, {**last, "status": status})


async def _pod(api: Api, job: Json, index: int, leader: str) -> Json:
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
    ip = leader if index == 0 else f"10.0.{index}.1"
    status = {
        "phase": "Running",
        "startTime": _text(NOW),
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "conditions": [{"type": type_, "status": "True"} for type_ in ("PodScheduled", "ContainersReady", "Ready")],
        "containerStatuses": [container],
    }
    return await api.put(PODS.path(namespace, pod["metadata"]["name"], "status"), {**pod, "status": status})


async def _tell(api: Api, job: Json, own: Children, told: Progress) -> None:
    """Write the status that the operator gives a job with these children."""
    context = Context(
        fine_tune_job_view(job),
        parse_spec(job["spec"]),
        FineTuneJobStatus(),
        own,
        datetime.now(UTC),
        TrainerImage(IMAGE),
    )
    status = plan(context, told).status
    if status is None:
        raise TypeError("a job that has not finished has a status")
    meta = job["metadata"]
    await api.put(FINE_TUNE_JOBS.path(meta["namespace"], meta["name"], "status"), {**job, "status": wire(status)})


def _active() -> Json:
    return {"active": NODES, "ready": NODES, "startTime": _text(NOW), "uncountedTerminatedPods": {}}


def _complete() -> Json:
    end = _text(NOW + timedelta(hours=1))
    return {
        "succeeded": NODES,
        "ready": 0,
        "completedIndexes": f"0-{NODES - 1}",
        "startTime": _text(NOW),
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
