"""1,000 jobs of two pods applied at once: the operator against asynchronous clients that post children themselves.

    python -m bench.launch [JOBS]

Prints JSON. All make their objects in turns, each turn on a fresh control plane: `plain` posts what a
gang needs at least, a Service and an Indexed Job; `client` posts the very children of the operator. Twice: without nodes,
where pods are made and wait, and with a node without a process that takes them. All times and counts come from the API
server's log of writes. `ratios` are the operator's rate by each client's, jobs posted to last pod made, and to children
complete, medians of the rounds, as the machine itself may become faster from one to the next; `processor_ms` is what each process of the control plane, and the operator, has worked for a job, which other
work on the same machine hardly changes; `looks_per_job` is how often the operator has looked at each; `alone` is one job at a time
on the idle system.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bench.support.plane import (
    OPERATOR,
    Json,
    children,
    count,
    each,
    fine_tune_job,
    installed,
    latencies,
    looks,
    make_namespace,
    names,
    percentiles,
    processor_ms,
)
from tests.cluster.api import Api
from tests.cluster.audit import Write
from tests.cluster.cluster import Cluster
from tests.operator.process import OperatorProcess
from unfreeze_operator.objects.resources import FINE_TUNE_JOBS, JOBS, PODS

NAMESPACE = "jobs"
NODES = 2
ALONE = 30
FIRST = 3
"""Jobs before each turn: the API server takes 2 s for the first object of a CRD, whose rules it compiles then."""
ROUNDS = 3
REFUSED = 400


def main() -> None:
    """Measure and print."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    results = {name: measure(jobs, nodes=name == "with_nodes") for name in ("without_nodes", "with_nodes")}
    print(json.dumps({"benchmark": "launch", "jobs": jobs, "pods_per_job": NODES, **results}, indent=1))


def measure(jobs: int, *, nodes: bool) -> Json:
    """Let all take their turns, in an order that changes; return the medians of the rounds' ratios, and the best turn of each.

    Each turn has a control plane of its own: with 1,000 jobs of an earlier turn in its stores, and 2,000 pods that its
    scheduler tries again, one is a third slower.
    """
    alone: Json = {}
    turns: dict[str, list[Json]] = {kind.__name__.lower(): [] for kind in CONTENDERS}
    for number in range(ROUNDS):
        for kind in CONTENDERS[:: 1 if number % 2 == 0 else -1]:
            name = kind.__name__.lower()
            # Nobody reports for the node, and it must not be given up.
            with installed("*", "-node-lifecycle-controller") as (cluster, operator):
                one_by_one, at_once = asyncio.run(turn(kind, cluster, operator, jobs, nodes=nodes, first=number == 0))
            turns[name].append(at_once)
            if number == 0:
                alone[f"{name}_ms"] = one_by_one
    best = {name: max(found, key=lambda turn: turn["jobs_per_s_until_pods"]) for name, found in turns.items()}
    ratios = {
        f"{rate}_by_{name}": [
            round(mine[rate] / its[rate], 3) for mine, its in zip(turns["operator"], turns[name], strict=True)
        ]
        for rate in ("jobs_per_s_until_pods", "jobs_per_s")
        for name in ("plain", "client")
    }
    return {
        "ratios": {rate: round(statistics.median(found), 3) for rate, found in ratios.items()}
        | {
            "alone_p50_by_plain": round(alone["operator_ms"]["p50"] / alone["plain_ms"]["p50"], 2),
            "processor_of_plain_by_operator": round(
                statistics.median(_worked(turn) for turn in turns["plain"])
                / statistics.median(_worked(turn) for turn in turns["operator"]),
                3,
            ),
        },
        "ratios_of_rounds": ratios,
        "alone": alone,
        **best,
        "jobs_per_s_until_pods_of_turns": {
            name: [turn["jobs_per_s_until_pods"] for turn in found] for name, found in turns.items()
        },
    }


def _worked(turn: Json) -> float:
    """Return the milliseconds of all processes for a job."""
    return sum(turn["processor_ms"].values())


async def turn(
    kind: type[Client], cluster: Cluster, operator: OperatorProcess, jobs: int, *, nodes: bool, first: bool
) -> tuple[Json, Json]:
    """Return what one job at a time takes, measured of the first turn, and all at once."""
    api = cluster.client()
    if nodes:
        await add_node(api)
    await make_namespace(api, NAMESPACE)
    contender = kind(Plane(cluster, api, operator), NAMESPACE)
    one_by_one = await contender.one_by_one(ALONE if first else FIRST)
    at_once = await contender.at_once(jobs)
    contender.stop()
    await api.close()
    return one_by_one, at_once


@dataclass
class Plane:
    """What both contenders need."""

    cluster: Cluster
    api: Api
    operator: OperatorProcess

    def processor_ms(self) -> dict[str, float]:
        """Return the processor time that each process of the control plane, and the operator while it runs, has used."""
        return processor_ms(self.cluster) | (
            {"operator": 1000 * self.operator.cpu_seconds()} if self.operator.running else {}
        )


class Client:
    """One client that posts the children of all jobs itself."""

    author = "admin"

    def __init__(self, plane: Plane, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace

    def stop(self) -> None:
        """Nothing runs."""

    def wanted(self, made: list[tuple[str, Json]]) -> list[tuple[str, Json]]:
        """Return which of the children are made."""
        return made

    def prepare(self, jobs: Sequence[str]) -> Callable[[str], Awaitable[None]]:
        """Return what starts a job."""
        made = {name: self.wanted(children(fine_tune_job(name, nodes=NODES), self.namespace)) for name in jobs}

        async def post(name: str) -> None:
            for path, manifest in made[name]:
                await self.plane.api.post(path, manifest)

        return post

    async def one_by_one(self, alone: int) -> dict[str, float]:
        """Start so many jobs, each when everybody is done with the one before."""
        jobs = names(alone)
        post, mark = self.prepare(jobs), self.plane.cluster.mark()
        for number, name in enumerate(jobs, start=1):
            await post(name)
            await self.settled(number, quiet=0.3)
        return percentiles(latencies(self.plane.cluster.writes(mark), self.namespace, self.author, alone), 50, 95)

    async def at_once(self, jobs: int) -> Json:
        """Start all jobs as fast as the client can; return rates, latencies and writes."""
        before = await count(self.plane.api, JOBS.path(self.namespace))
        post, mark = self.prepare(names(jobs, before)), self.plane.cluster.mark()
        worked = self.plane.processor_ms()
        await each(names(jobs, before), post)
        await self.settled(before + jobs, quiet=2)
        taken = {name: round((ms - worked[name]) / jobs, 2) for name, ms in self.plane.processor_ms().items()}
        return {**self.figures(self.plane.cluster.writes(mark), jobs), "processor_ms": taken}

    async def settled(self, jobs: int, quiet: float) -> None:
        """Wait until so many jobs have their pods, and nobody has written anything for a while."""
        mark, since = -1, time.monotonic()
        while time.monotonic() < since + quiet:
            await asyncio.sleep(0.1)
            pods = await count(self.plane.api, PODS.path(self.namespace))
            if mark != self.plane.cluster.mark() or pods < NODES * jobs:
                mark, since = self.plane.cluster.mark(), time.monotonic()

    def figures(self, writes: Sequence[Write], jobs: int) -> Json:
        """Return rates, latencies and writes per job of one turn."""
        writes = [write for write in writes if write.namespace == self.namespace]
        waits = latencies(writes, self.namespace, self.author, jobs)
        own = [write for write in writes if write.user == self.author]
        began = min(write.began for write in writes)
        children_end = max(w.ended for w in own if w.verb == "create" and w.resource != "events")
        pods_end = max(w.ended for w in writes if (w.verb, w.resource) == ("create", "pods"))
        return {
            "jobs_per_s": round(jobs / (children_end - began), 1),
            "jobs_per_s_until_pods": round(jobs / (pods_end - began), 1),
            "until_children_ms": percentiles(waits, 50, 99),
            "writes_per_job": per_job(own, jobs),
            "writes_per_job_of_all": per_job(writes, jobs),
        }


class Plain(Client):
    """One client that posts what a gang needs at least."""

    def wanted(self, made: list[tuple[str, Json]]) -> list[tuple[str, Json]]:
        """Return the Service and the Job, whose pods then never start: they would mount the ConfigMap."""
        return [(path, manifest) for path, manifest in made if manifest["kind"] in ("Service", "Job")]


class Operator(Client):
    """The jobs are posted, and the operator makes their children."""

    author = OPERATOR

    def __init__(self, plane: Plane, namespace: str) -> None:
        super().__init__(plane, namespace)
        plane.operator.namespaces = (namespace,)
        plane.operator.start()

    def stop(self) -> None:
        """End the operator."""
        self.plane.operator.stop()

    def prepare(self, jobs: Sequence[str]) -> Callable[[str], Awaitable[None]]:
        """Return what starts a job."""
        made = {name: fine_tune_job(name, nodes=NODES) for name in jobs}

        async def post(name: str) -> None:
            await self.plane.api.post(FINE_TUNE_JOBS.path(self.namespace), made[name])

        return post

    async def at_once(self, jobs: int) -> Json:
        """Apply all jobs; return rates, latencies, writes, and what the operator took."""
        before = looks(self.plane.operator)
        found = await super().at_once(jobs)
        looked = round((looks(self.plane.operator) - before) / jobs, 2)
        return {**found, "looks_per_job": looked, "peak_mib": round(self.plane.operator.memory_mib("VmHWM"))}


CONTENDERS: tuple[type[Client], ...] = (Plain, Client, Operator)


def per_job(writes: Sequence[Write], jobs: int) -> dict[str, float]:
    """Return the mean number of writes of each kind; those that were refused are named so."""
    kinds = Counter(f"{'refused ' if w.code >= REFUSED else ''}{w.verb} {w.resource}" for w in writes)
    return {"all": round(len(writes) / jobs, 2)} | {kind: round(n / jobs, 2) for kind, n in kinds.most_common()}


async def add_node(api: Api) -> None:
    """Register a node with room for every pod; they are bound to it and never start."""
    room = {"cpu": "100k", "memory": "100Ti", "pods": "100000"}
    ready = {"type": "Ready", "status": "True", "reason": "Bench", "message": ""}
    await api.post("/api/v1/nodes", {"metadata": {"name": "room"}})
    status = {"capacity": room, "allocatable": room, "conditions": [ready]}
    await api.patch("/api/v1/nodes/room/status", {"status": status})
    await api.patch("/api/v1/nodes/room", {"spec": {"taints": None}})  # "not ready", put there by admission


if __name__ == "__main__":
    main()
