"""The operator's half: what it makes of a job, and of what the job's pods say. In this process, or as another version.

python operator_side.py < QUESTIONS     (JSON in, JSON out; `unfreeze_operator` and `tests` are whichever are on the path)
"""

from __future__ import annotations

import asyncio
import json
import sys
from importlib import import_module
from inspect import signature
from typing import Any

from aiohttp import ClientSession, web

from tests.operator.fakes import NOW, FakeCluster, pod, text

Json = dict[str, Any]


def _of(module: str, name: str) -> Any:
    """Return what a module has; the first build's modules lay in no folders, and one had another name."""
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError:
        package, *_, file = module.split(".")
        return getattr(import_module(f"{package}.{'progress' if file == 'poller' else file}"), name)


FineTuneJobStatus = _of("unfreeze_api.contracts.status", "FineTuneJobStatus")
ask = _of("unfreeze_operator.cluster.poller", "ask")
plan = _of("unfreeze_operator.decisions.plan", "plan")
config_map = _of("unfreeze_operator.manifests.children", "config_map")
PODS = _of("unfreeze_operator.objects.resources", "PODS")
fine_tune_job_view = _of("unfreeze_operator.objects.views", "fine_tune_job_view")
wire = _of("unfreeze_operator.reconcile", "wire")


def view_of(spec: Json) -> Any:
    """Return a job as the operator's cache has it."""
    metadata = {"name": "job", "namespace": "ns", "uid": "u1", "resourceVersion": "1", "generation": 1}
    return fine_tune_job_view({"metadata": metadata | {"creationTimestamp": text(NOW)}, "spec": spec})


def job_files(specs: list[Json]) -> list[Any]:
    """Return job.json of each spec, and the annotations by which changes of the spec or of job.json are noticed.

    Of jobs whose Job and Service have their own name, as the first operator calls them and a later one still does.
    """
    takes_names = "names" in signature(config_map).parameters
    names = [_of("unfreeze_operator.objects.resources", "GangNames")("job", "job")] if takes_names else []
    found = []
    for spec in specs:
        view = view_of(spec)
        manifest = config_map(view, FakeCluster().context(view).spec, *names)
        found.append([manifest["data"]["job.json"], manifest["metadata"]["annotations"]])
    return found


def statuses(spec: Json, answers: list[str], message: str, code: int) -> list[Json]:
    """Return the statuses of a job of one pod: after each answer of its leader to /progress, and after its end.

    Parameters
    ----------
    message, code
        Termination message and exit code of the pod.
    """
    cluster, view, status, found = FakeCluster(), view_of(spec), FineTuneJobStatus(), []
    cluster.step(view)
    job = cluster.job()
    job["status"] = {"active": 1, "startTime": text(NOW)}
    leader = cluster.add(PODS, pod(0, owner=job["metadata"]["uid"], name="job-0"))
    for answer in answers:
        status = plan(cluster.context(view, status), asyncio.run(_asked(answer.encode()))).status
        found.append(wire(status))
    phase, outcome = ("Failed", "Failed") if code else ("Succeeded", "Complete")
    ended = {"exitCode": code, "message": message, "finishedAt": text(NOW)}
    leader["status"] |= {"phase": phase, "conditions": [], "containerStatuses": [{"state": {"terminated": ended}}]}
    condition = {"type": outcome, "status": "True", "reason": "PodFailurePolicy", "lastTransitionTime": text(NOW)}
    job["status"] = {"conditions": [condition], "completionTime": text(NOW)}
    return [*found, wire(plan(cluster.context(view, status)).status)]


async def _asked(answer: bytes) -> Any:
    """Let the operator ask a leader that gives this answer."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=answer)

    server = web.Application()
    server.router.add_get("/progress", handle)
    runner = web.AppRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with ClientSession() as session:
            host, port = runner.addresses[0]
            return await ask(session, f"http://{host}:{port}/progress")
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    QUESTIONS = json.load(sys.stdin)
    json.dump([globals()[name](*arguments) for name, arguments in QUESTIONS], sys.stdout)
