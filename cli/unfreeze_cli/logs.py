"""`kubectl ftj logs`: of one place in the gang, through every pod that has taken it."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from unfreeze_cli.kubectl import Json, Kubectl
from unfreeze_cli.page import index_of, pod_state
from unfreeze_cli.text import plain

POLL_SECONDS = 1.0
FINISHED = ("Succeeded", "Failed")
_TRAINER = "trainer"
"""A pod may have others: one that fetches, and what a cluster puts into it, which may stand first."""


def print_logs(kubectl: Kubectl, name: str, index: int | None, tail: int | None) -> None:
    """Print the logs of a place in the gang, oldest pod first.

    Parameters
    ----------
    kubectl
        The cluster.
    name
        The job.
    index
        Which place; by default the one that failed, in a job that has failed, else the leader's.
    tail
        Lines of each pod; None for all.
    """
    job = kubectl.job(name)
    pods = kubectl.pods(name)
    wanted = chosen(job, pods) if index is None else index
    found = [pod for pod in pods if index_of(pod) == wanted and _has_started(pod)]
    for pod in found:
        if len(found) > 1:
            click.echo(_header(pod))
        lines = [f"--tail={tail}"] if tail is not None else []
        _stream(kubectl, name, pod, *lines)
    if not found:
        raise click.ClickException(_without_logs(job, wanted))


def follow(
    kubectl: Kubectl, name: str, index: int | None, tail: int | None, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Print the logs of a place in the gang as they are written, until the job has finished or is suspended.

    The cluster may end the stream of a pod that goes on, as when an API server is replaced: it is followed again from there.
    """
    job = kubectl.job(name)
    wanted = chosen(job, kubectl.pods(name)) if index is None else index
    seen: dict[str, float] = {}
    waits = False
    while True:
        # In this order: what the last pod wrote is seen before its job has ended.
        job = kubectl.job(name)
        pods = [pod for pod in kubectl.pods(name) if index_of(pod) == wanted]
        fresh = [pod for pod in pods if _runs(pod) or (pod["metadata"]["uid"] not in seen and _has_started(pod))]
        for pod in fresh:
            uid = pod["metadata"]["uid"]
            if uid in seen:
                lines = [f"--since={max(1, int(time.monotonic() - seen[uid]))}s"]
            else:
                click.echo(_header(pod), err=True)
                lines = [f"--tail={tail}"] if tail is not None else []
            _stream(kubectl, name, pod, "--follow", *lines)
            seen[uid] = time.monotonic()
        phase = job.get("status", {}).get("phase", "Pending")
        if not fresh and phase in (*FINISHED, "Suspended"):
            click.echo(f"The job has {phase.lower()}." if phase in FINISHED else "The job is suspended.", err=True)
            if not seen and phase in FINISHED:
                raise click.ClickException(_without_logs(job, wanted))
            return
        if not fresh and not waits:
            click.echo(f"Waiting for pod {wanted} to start ({phase}) ...", err=True)
        waits = not fresh
        sleep(POLL_SECONDS)


def _stream(kubectl: Kubectl, name: str, pod: Json, *options: str) -> None:
    """Print the log of a pod; one that is taken away meanwhile has said what it had to say."""
    meta = pod["metadata"]
    failed = kubectl.stream("logs", meta["name"], f"--container={_TRAINER}", *options)
    if failed and any(other["metadata"]["uid"] == meta["uid"] for other in kubectl.pods(name)):
        raise SystemExit(1)  # kubectl has said why


def chosen(job: Json, pods: list[Json]) -> int:
    """Return the place in the gang that people ask for first: the failed one's in a failed job, else the leader's."""
    status = job.get("status", {})
    failed = status.get("failure", {}).get("pod") if status.get("phase") == "Failed" else None
    return next((index_of(pod) for pod in pods if pod["metadata"]["name"] == failed), 0)


def _has_started(pod: Json) -> bool:
    """Whether the trainer of a pod has run, and may have written something."""
    return not _state(pod).keys().isdisjoint(("running", "terminated"))


def _runs(pod: Json) -> bool:
    return "running" in _state(pod)


def _state(pod: Json) -> Json:
    """Return the state of a pod's trainer: what stands beside it may start before it, and outlive it."""
    states = pod.get("status", {}).get("containerStatuses", ())
    return next((one.get("state", {}) for one in states if one["name"] == _TRAINER), {})


def _header(pod: Json) -> str:
    return f"==> {pod['metadata']['name']} ({pod_state(pod)}) <=="


def _without_logs(job: Json, index: int) -> str:
    tail = job.get("status", {}).get("failure", {}).get("logTail")
    text = f"no pod {index} of the job has logs: it has not started, or its pods are deleted"
    return f"{text}; the last lines in the job's status are:\n{plain(tail)}" if tail else text
