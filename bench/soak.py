"""An hour of jobs by a fixed seed: memory of the operator, and whether every job ends as it should.

    python -m bench.soak [MINUTES [JOBS_AT_ONCE]]

Prints JSON. Jobs are created, changed, suspended, resumed, robbed of pods, ended and deleted, each with a history that its
number and the seed draw, on a control plane of their own whose one node only reports what a kubelet would; one server answers
for all leaders. Each job's end is compared with what its history asks for; at the end nothing may be left of any. `slope` is
the operator's own memory by jobs that have ended, least squares after the first quarter of the time: `own_mib` is what it has
allocated (RssAnon), `mib` all that is resident, of which the kernel takes pages of files away when others need the room.
"""

from __future__ import annotations

import asyncio
import functools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, NamedTuple

from bench.launch import add_node
from bench.support.kubelet import Fate, Kubelet, patiently
from bench.support.leaders import Leaders
from bench.support.plane import OPERATOR, Json, count, fine_tune_job, installed, make_namespace
from tests.cluster.api import Api, ApiError, Store
from tests.cluster.cluster import Cluster
from tests.operator.process import OperatorProcess
from unfreeze_api.contracts.progress import ExitCode
from unfreeze_operator.objects.resources import (
    CONFIG_MAPS,
    FINE_TUNE_JOBS,
    JOB_LABEL,
    JOBS,
    NETWORK_POLICIES,
    PODS,
    SERVICES,
)

SEED = 20
MINUTES = 60.0
AT_ONCE = 16
PLACES = 250
SECONDS = 600
"""How long anything that is waited for may take."""
SAMPLE_SECONDS = 10.0
NAMESPACE = "soak"
REFUSED = HTTPStatus.BAD_REQUEST


class WrongEndError(Exception):
    """A job did not become what its history asks for."""


class Sample(NamedTuple):
    """The operator at a moment."""

    seconds: float
    jobs: int
    """Those that have ended."""
    resident: float
    """MiB."""
    own: float
    """MiB that it has allocated, without pages of files."""


class Soak:
    """Lets jobs live, so many at a time.

    Parameters
    ----------
    api
        A client of the API server.
    """

    def __init__(self, api: Api) -> None:
        self.ended = 0
        self.kinds: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._api = api
        self._number = 0
        self._fates: dict[str, Callable[[int], Fate]] = {}
        self._starts: Counter[str] = Counter()
        self.jobs = Store(api, FINE_TUNE_JOBS.path(NAMESPACE), lambda *_: None)

    def fate(self, name: str, index: int) -> Fate:
        """Return what becomes of a pod; each of an index's pods counts as a try."""
        self._starts[name] += index == 0
        tell = self._fates.get(name)
        return tell(self._starts[name]) if tell is not None else Fate(None)

    async def live(self, until: float) -> None:
        """Let one job after the other live until a moment of the monotonic clock."""
        while time.monotonic() < until:
            self._number += 1
            chance = random.Random(f"{SEED}-{self._number}")  # noqa: S311 - drawn again by the same seed
            kind = chance.choice([*KINDS])
            name = f"{kind}-{self._number}"
            try:
                await KINDS[kind](self, name, chance)
                await self.delete(name)
            except (ApiError, WrongEndError) as error:
                self.wrong.append(f"{name}: {error}")
            self._fates.pop(name, None)
            self._starts.pop(name, None)
            self.kinds[kind] += 1
            self.ended += 1

    # -- what is done to a job -----------------------------------------------------------------------------------

    async def create(self, name: str, fate: Callable[[int], Fate], *, nodes: int = 1, **policy: Any) -> None:
        """Create a job whose pods' fate depends on how many of their index there were."""
        self._fates[name] = fate
        job = fine_tune_job(name, nodes=nodes)
        job["spec"]["runPolicy"] = policy
        await patiently(lambda: self._api.post(FINE_TUNE_JOBS.path(NAMESPACE), job))

    def become(self, name: str, fate: Fate) -> None:
        """Give pods of a job that start from now on this fate, in whatever order they do."""
        self._fates[name] = lambda _: fate

    async def change(self, name: str, **spec: Json) -> None:
        """Merge a change into a spec."""
        path = FINE_TUNE_JOBS.path(NAMESPACE, name)
        await patiently(lambda: self._api.merge(path, {"spec": spec}))

    async def suspend(self, name: str, value: bool) -> None:
        """Suspend or resume a job."""
        await self.change(name, runPolicy={"suspend": value})

    async def delete(self, name: str) -> None:
        """Delete a job that may be gone already."""
        try:
            background = {"propagationPolicy": "Background"}
            await patiently(lambda: self._api.delete(FINE_TUNE_JOBS.path(NAMESPACE, name), background))
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    async def rob(self, name: str) -> None:
        """Delete a pod as a drain does."""
        selector = f"{JOB_LABEL}={name}"
        pods = await patiently(lambda: self._api.get(PODS.path(NAMESPACE), labelSelector=selector))
        path = PODS.path(NAMESPACE, pods["items"][0]["metadata"]["name"])
        await patiently(lambda: self._api.delete(path))

    # -- what is waited for --------------------------------------------------------------------------------------

    async def until(self, name: str, holds: Callable[[Json], bool], what: str) -> Json:
        """Wait for a status and return it; {} stands for a job that is gone."""
        end = time.monotonic() + SECONDS
        while True:
            job = self.jobs.items.get((NAMESPACE, name))
            status: Json = job.get("status", {}) if job else {}
            if holds({} if job is None else {"there": True, **status}):
                return status
            if time.monotonic() > end:
                raise WrongEndError(f"not {what} after {SECONDS} s: {status}")
            await asyncio.sleep(0.2)

    async def phase(self, name: str, *phases: str) -> Json:
        """Wait for one of these phases."""
        return await self.until(name, lambda status: status.get("phase") in phases, " or ".join(phases))

    async def ends(self, name: str, phase: str, reason: str | None = None) -> None:
        """Wait for a job's end, and complain about another one."""
        status = await self.until(name, lambda status: "completionTime" in status, f"{phase} {reason or ''}")
        found = (status["phase"], status.get("failure", {}).get("reason"))
        if found != (phase, reason):
            raise WrongEndError(f"it is {found} and should be {(phase, reason)}")
        if phase == "Succeeded" and status.get("results") != {"test.accuracy": 0.93}:
            raise WrongEndError(f"it has these results: {status.get('results')}")


def life(chance: random.Random) -> float:
    """Return how long a job trains, in seconds."""
    return chance.uniform(1, 25)


async def short(soak: Soak, name: str, chance: random.Random) -> None:
    """Let a job of one to four pods succeed."""
    fate = Fate(life(chance))
    await soak.create(name, lambda _: fate, nodes=chance.choice([1, 1, 2, 4]))
    await soak.ends(name, "Succeeded")


async def wrong(soak: Soak, name: str, chance: random.Random) -> None:
    """Let a job end as its data is wrong."""
    fate = Fate(life(chance), ExitCode.JOB_ERROR, "InvalidData")
    await soak.create(name, lambda _: fate, backoffLimit=3)
    await soak.ends(name, "Failed", "InvalidData")


async def again(soak: Soak, name: str, chance: random.Random) -> None:
    """Let a job fail once and then succeed."""
    seconds = life(chance)
    await soak.create(name, lambda turn: Fate(seconds) if turn > 1 else Fate(1, 1, "WorkerFailed"), backoffLimit=2)
    await soak.ends(name, "Succeeded")


async def hopeless(soak: Soak, name: str, chance: random.Random) -> None:
    """Let a job fail more often than it may."""
    seconds = chance.uniform(0, 3)
    await soak.create(name, lambda _: Fate(seconds, 1, "WorkerFailed"), backoffLimit=1)
    await soak.ends(name, "Failed", "WorkerFailed")


async def paused(soak: Soak, name: str, chance: random.Random) -> None:
    """Suspend and resume a job once to three times, with other nodes and labels each time."""
    turns, seconds = chance.randint(1, 3), life(chance)
    await soak.create(name, lambda _: Fate(None), nodes=chance.choice([1, 2]))
    for turn in range(turns):
        await soak.phase(name, "Running")
        await asyncio.sleep(chance.uniform(0, 3))
        await soak.suspend(name, True)
        await soak.phase(name, "Suspended")
        if turn == turns - 1:
            soak.become(name, Fate(seconds))
        await soak.change(
            name, distribution={"numNodes": chance.choice([1, 2, 3])}, template={"labels": {"turn": f"t{turn}"}}
        )
        await soak.suspend(name, False)
    await soak.ends(name, "Succeeded")


async def robbed(soak: Soak, name: str, chance: random.Random) -> None:
    """Delete the pod of a job, which then succeeds with another one."""
    seconds = life(chance)
    await soak.create(name, lambda turn: Fate(seconds) if turn > 1 else Fate(None))
    await soak.phase(name, "Running")
    await soak.rob(name)
    await soak.ends(name, "Succeeded")


async def held(soak: Soak, name: str, _: random.Random) -> None:
    """Create a suspended job, and delete it so."""
    await soak.create(name, lambda _: Fate(None), suspend=True)
    await soak.phase(name, "Suspended")


async def dropped(soak: Soak, name: str, chance: random.Random) -> None:
    """Delete a job at some moment of its life."""
    await soak.create(name, lambda _: Fate(None), nodes=2)
    await asyncio.sleep(chance.uniform(0, 12))


async def late(soak: Soak, name: str, chance: random.Random) -> None:
    """Let a job run longer than it may."""
    await soak.create(name, lambda _: Fate(None), activeDeadlineSeconds=chance.randint(1, 6))
    await soak.ends(name, "Failed", "DeadlineExceeded")


async def expiring(soak: Soak, name: str, chance: random.Random) -> None:
    """Give a job that has started no time to live after its end."""
    fate = Fate(life(chance))
    await soak.create(name, lambda _: fate)
    await soak.phase(name, "Running", "Succeeded")
    await soak.change(name, runPolicy={"ttlSecondsAfterFinished": 0})
    await soak.until(name, lambda status: not status, "gone")


async def stuck(soak: Soak, name: str, _: random.Random) -> None:
    """Let a job find no node that fits until its time to start is over."""
    await soak.create(name, lambda _: Fate(None), suspend=True)
    await soak.phase(name, "Suspended")
    await soak.change(name, template={"nodeSelector": {"no": "such-node"}}, runPolicy={"startupTimeoutSeconds": 3})
    await soak.suspend(name, False)
    await soak.ends(name, "Failed", "StartupTimeout")


KINDS: dict[str, Callable[[Soak, str, random.Random], Awaitable[None]]] = {
    kind.__name__: kind
    for kind in (short, wrong, again, hopeless, paused, robbed, held, dropped, late, expiring, stuck)
}


def main() -> int:
    """Soak and print; return 1 when a job did not end as it should, or something is left."""
    given = [float(text) for text in sys.argv[1:]]
    minutes = given[0] if given else MINUTES
    at_once = int(given[1]) if given[1:] else AT_ONCE
    with installed("*", "-node-lifecycle-controller") as (cluster, operator):
        found = asyncio.run(measure(cluster, operator, minutes, at_once))
    print(
        json.dumps({"benchmark": "soak", "seed": SEED, "minutes": minutes, "jobs_at_once": at_once, **found}, indent=1)
    )
    return bool(found["wrong"] or any(found["left"].values()))


async def measure(cluster: Cluster, operator: OperatorProcess, minutes: float, at_once: int) -> Json:
    """Let jobs live so long; return memory, writes and what went wrong."""
    api, leaders = cluster.client(), Leaders()
    await make_namespace(api, NAMESPACE)
    await add_node(api)
    await asyncio.to_thread(operator.start, SECONDS)
    soak = Soak(api)
    mark, began = cluster.mark(), time.monotonic()
    end = began + 60 * minutes
    samples: list[Sample] = []
    async with leaders.serve(PLACES):
        helpers = [asyncio.ensure_future(one) for one in (soak.jobs.run(), Kubelet(api, soak.fate, PLACES).run())]
        watch = asyncio.ensure_future(_watch(operator, soak, leaders, samples, began))
        await asyncio.gather(*(soak.live(end) for _ in range(at_once)))
        watch.cancel()
        left = await _left(api)
        for helper in helpers:
            helper.cancel()
    writes = [write for write in cluster.writes(mark) if write.user == OPERATOR]
    refused = Counter(f"{w.verb} {w.resource} {w.code}" for w in writes if w.code >= REFUSED)
    await api.close()
    tenths = samples[:: max(1, len(samples) // 10)]
    return {
        "jobs": soak.ended,
        "kinds": dict(soak.kinds.most_common()),
        "wrong": soak.wrong,
        "left": left,
        "mib": {"least": min(one.resident for one in samples), "most": max(one.resident for one in samples)},
        "mib_each_tenth": [round(one.resident, 1) for one in tenths],
        "own_mib_each_tenth": [round(one.own, 1) for one in tenths],
        "slope_mib_per_1000_jobs": slope([(one.jobs, one.own) for one in samples if one.seconds > 15 * minutes]),
        "mib_at_the_end": round(operator.memory_mib(), 1),
        "own_mib_at_the_end": round(operator.memory_mib("RssAnon"), 1),
        "peak_mib": round(operator.memory_mib("VmHWM"), 1),
        "processor_ms_per_job": round(1000 * operator.cpu_seconds() / soak.ended, 1),
        "writes_of_the_operator_per_job": {
            "all": round(len(writes) / soak.ended, 2),
            **{
                kind: round(number / soak.ended, 2)
                for kind, number in Counter(f"{w.verb} {w.resource}" for w in writes).most_common()
            },
        },
        "refused": dict(refused.most_common()),
        "lines_of_warning": sum(line.get("level", "").upper() in ("WARNING", "ERROR") for line in operator.lines()),
    }


async def _watch(operator: OperatorProcess, soak: Soak, leaders: Leaders, samples: list[Sample], began: float) -> None:
    """Note time, jobs that have ended and memory, for ever."""
    while True:
        resident, own = operator.memory_mib(), operator.memory_mib("RssAnon")
        samples.append(Sample(time.monotonic() - began, soak.ended, resident, own))
        leaders.clear()
        if len(samples) % 6 == 1:
            line = f"{samples[-1].seconds:.0f} s: {soak.ended} jobs, {resident:.1f} MiB, {own:.1f} of its own"
            print(f"{line}, {len(soak.wrong)} wrong", file=sys.stderr, flush=True)
        await asyncio.sleep(SAMPLE_SECONDS)


async def _left(api: Api) -> dict[str, int]:
    """Wait until nothing is left of any job, and return what is."""
    end = time.monotonic() + SECONDS
    while True:
        kinds = (FINE_TUNE_JOBS, JOBS, PODS, SERVICES, CONFIG_MAPS, NETWORK_POLICIES)
        left = {kind.plural: await patiently(functools.partial(count, api, kind.path(NAMESPACE))) for kind in kinds}
        left[CONFIG_MAPS.plural] -= 1  # kube-root-ca.crt
        if not any(left.values()) or time.monotonic() > end:
            return left
        await asyncio.sleep(1)


def slope(points: list[tuple[int, float]]) -> float | None:
    """Return the slope of a straight line through points by least squares, for a thousand; None without two of them."""
    if len({x for x, _ in points}) <= 1:
        return None
    x0, y0 = (sum(values) / len(points) for values in zip(*points, strict=True))
    rise = sum((x - x0) * (y - y0) for x, y in points) / sum((x - x0) ** 2 for x, _ in points)
    return round(1000 * rise, 3)


if __name__ == "__main__":
    sys.exit(main())
