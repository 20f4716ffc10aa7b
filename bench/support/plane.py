"""A control plane with the operator installed, and many objects on it at once, for the benchmarks of the operator."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from tests.cluster.api import Api
from tests.cluster.audit import Write
from tests.cluster.cluster import Cluster
from tests.cluster.config import Config
from tests.operator.process import IMAGE, OperatorProcess, install, processor_seconds
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_api.job import parse_spec
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.actions import Create
from unfreeze_operator.objects.resources import FINE_TUNE_JOBS
from unfreeze_operator.objects.views import fine_tune_job_view
from unfreeze_operator.observed.context import Children, Context
from unfreeze_operator.settings.options import Settings, TrainerImage

ROOT = Path(__file__).parents[2]

Json = dict[str, Any]
T = TypeVar("T")

OPERATOR = "system:serviceaccount:unfreeze-system:unfreeze-operator"
"""The operator's name in the log of writes."""
NAME = "job-{:05}"
"""Names of one length, so that a child's name begins with its job's."""
AT_ONCE = 32
"""Requests of a client that are under way at the same time: more make it no faster here."""


@contextlib.contextmanager
def installed(*controllers: str) -> Iterator[tuple[Cluster, OperatorProcess]]:
    """Give a control plane without nodes that logs every write, and an operator with its defaults, not started yet."""
    # Here and below: not the short times of the tests.
    config = Config(nodes=0, audit=True, controllers=controllers, job_sync_period=1, job_pod_backoff=10)
    with (
        Cluster(config) as cluster,
        tempfile.TemporaryDirectory() as folder,
    ):
        options = (
            f"--progress-interval={Settings.progress_interval}",
            f"--status-interval={Settings.status_interval}",
            f"--lost-pod-grace={Settings.lost_pod_grace}",
        )
        operator = OperatorProcess(install(cluster, ROOT), Path(folder), options=options)
        try:
            yield cluster, operator
        finally:
            operator.kill()


def processor_ms(cluster: Cluster) -> dict[str, float]:
    """Return the processor time that each component of a control plane has used."""
    lines = (cluster.folder / "ready").read_text().splitlines()
    pids = {name: int(pid) for pid, name in (line.split("\t") for line in lines)}
    return {name: 1000 * processor_seconds(pid) for name, pid in pids.items()}


async def each(items: Iterable[T], do: Callable[[T], Awaitable[object]]) -> None:
    """Do something with every item, AT_ONCE of them at a time."""
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            await do(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())


async def make_namespace(api: Api, name: str) -> None:
    """Create a namespace in which pods can be created."""
    await api.post("/api/v1/namespaces", {"metadata": {"name": name}})
    while not (await api.get(f"/api/v1/namespaces/{name}/serviceaccounts"))["items"]:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.05)


def fine_tune_job(name: str, *, nodes: int) -> Json:
    """Return the manifest of a small job, one that waits for no volume."""
    return {
        "apiVersion": FINE_TUNE_JOBS.api_version,
        "kind": FINE_TUNE_JOBS.kind,
        "metadata": {"name": name},
        "spec": {
            "model": {"source": "file:///data/model"},
            "task": {"type": "TextClassification"},
            "data": {"train": {"source": "file:///data/train.csv"}},
            "strategy": {"type": "GradualUnfreezing"},
            "distribution": {"numNodes": nodes},
            "output": {"destination": f"file:///data/{name}"},
        },
    }


def children(job: Json, namespace: str) -> list[tuple[str, Json]]:
    """Return paths and manifests of what the operator makes for a job, each owned by it if it has a UID."""
    uid = job["metadata"].get("uid", "")
    meta = {"resourceVersion": "1", **job["metadata"], "namespace": namespace, "uid": uid}
    view = fine_tune_job_view({**job, "metadata": meta})
    now = datetime.now(UTC)
    asked = plan(Context(view, parse_spec(job["spec"]), FineTuneJobStatus(), Children(), now, TrainerImage(IMAGE)))
    made = []
    for action in asked.actions:
        if not isinstance(action, Create):
            raise TypeError(f"a new job begins with {action}")
        if not uid:
            del action.manifest["metadata"]["ownerReferences"]
        made.append((action.resource.path(namespace), action.manifest))
    return made


def names(count: int, first: int = 0) -> list[str]:
    """Return names of jobs."""
    return [NAME.format(number) for number in range(first, first + count)]


async def count(api: Api, path: str) -> int:
    """Return how many objects a collection has."""
    page = await api.get(path, limit="1")
    return len(page["items"]) + int(page["metadata"].get("remainingItemCount", 0))


def latencies(writes: Sequence[Write], namespace: str, author: str, jobs: int) -> list[float]:
    """Return, for each job that was made, the seconds from the first request about it to the last of its children."""
    made = [
        write
        for write in writes
        if (write.namespace, write.verb, write.code) == (namespace, "create", HTTPStatus.CREATED)
        and write.user in ("admin", author)
        and write.resource != "events"
    ]
    starts: dict[str, float] = {}
    ends: dict[str, float] = {}
    numbers: Counter[str] = Counter()
    for write in made:
        name = write.name[: len(NAME.format(0))]
        starts[name] = min(starts.get(name, write.began), write.began)
        ends[name] = max(ends.get(name, write.ended), write.ended)
        numbers[name] += 1
    if len(ends) != jobs or len(set(numbers.values())) != 1:
        raise RuntimeError(f"{len(ends)} of {jobs} jobs, with children of these numbers: {set(numbers.values())}")
    return [end - starts[name] for name, end in ends.items()]


def looks(operator: OperatorProcess) -> float:
    """Return how often the operator has reconciled."""
    return operator.metric("unfreeze_reconcile_duration_seconds_count") or 0


def percentiles(seconds: Sequence[float], *which: int) -> dict[str, float]:
    """Return percentiles in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {f"p{number}": round(1000 * cuts[number - 1], 1) for number in which}
