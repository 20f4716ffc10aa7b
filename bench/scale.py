"""Up to 10,000 finished jobs, and a running one with four pods for every ten: what the operator needs to start and to rest.

    python -m bench.scale [FINISHED ...]

Prints JSON, and draws docs/scale.svg. Jobs, children and pods are there as the operator, the controllers and a node
would have left them; no controller and no node runs, so that all that is written afterwards is the operator's. One
server answers for all leaders. Of every size: a start of the operator until its caches are in sync and until it has looked
at every job, its processor time and memory, its writes, and the time from the creation of one more job to its children. At
the largest size: a minute with leaders that stand still, one with leaders that train on, and two with silent ones.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from bench.support.fill import NODES, Filler
from bench.support.leaders import Leaders
from bench.support.plane import (
    OPERATOR,
    Json,
    children,
    fine_tune_job,
    installed,
    latencies,
    looks,
    make_namespace,
    names,
    percentiles,
)
from bench.support.plot import draw
from tests.cluster.api import Api
from tests.cluster.cluster import Cluster
from tests.operator.process import OperatorProcess
from unfreeze_operator.objects.resources import FINE_TUNE_JOBS

SIZES = (100, 300, 1000, 3000, 10_000)
RUNNING_SHARE = 10
"""Finished jobs for each running one."""
START_SECONDS = 600
ALONE = 20
MINUTE = 60
NAMESPACE = "scale"
PLOT = Path(__file__).parents[1] / "docs" / "scale.svg"


def main() -> None:
    """Measure, print and draw."""
    sizes = [int(text) for text in sys.argv[1:]] or list(SIZES)
    with installed("serviceaccount-controller") as (cluster, operator):
        result = asyncio.run(measure(cluster, operator, sizes))
    if sizes == list(SIZES):
        PLOT.write_text(draw(result["sizes"]))
    print(json.dumps({"benchmark": "scale", "pods_per_running_job": NODES, **result}, indent=1))


async def measure(cluster: Cluster, operator: OperatorProcess, sizes: list[int]) -> Json:
    """Grow from size to size; at the last one look at the operator at rest."""
    api, leaders = cluster.client(), Leaders()
    await make_namespace(api, NAMESPACE)
    filler = Filler(api, cluster.etcd, NAMESPACE)
    rows, filled = [], 0
    async with leaders.serve(max(sizes) // RUNNING_SHARE):
        rows.append(await start(cluster, operator, api, 0))
        for size in sizes:
            await asyncio.to_thread(operator.stop)
            await filler.fill(range(filled, size), range(filled // RUNNING_SHARE, size // RUNNING_SHARE))
            filled = size
            rows.append(await start(cluster, operator, api, size))
        rest = {"still": await rest_of(cluster, operator, leaders)}
        leaders.moving = True
        rest["training"] = await rest_of(cluster, operator, leaders)
        leaders.moving, leaders.silent = False, True
        rest["silent"] = await rest_of(cluster, operator, leaders)
        rest["silent later"] = await rest_of(cluster, operator, leaders)
        scrape = time.perf_counter()
        page = await asyncio.to_thread(operator.get, "/metrics")
        scrape = time.perf_counter() - scrape
    await api.close()
    return {"sizes": rows, "rest": rest, "scrape": {"seconds": round(scrape, 2), "mib": round(len(page[1]) / 2**20, 1)}}


async def start(cluster: Cluster, operator: OperatorProcess, api: Api, finished: int) -> Json:
    """Start the operator and return what it takes until it has looked at every job, and then for one more job."""
    running = finished // RUNNING_SHARE
    mark, began = cluster.mark(), time.monotonic()
    await asyncio.to_thread(operator.start, START_SECONDS)
    ready = time.monotonic() - began
    while looks(operator) < finished + running:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(1)  # the page of metrics is work too
    row: Json = {
        "finished": finished,
        "running": running,
        "pods": running * NODES,
        "in_sync_s": round(ready, 2),
        "all_seen_s": round(time.monotonic() - began, 2),
        "cpu_s": round(operator.cpu_seconds(), 2),
        "peak_mib": round(operator.memory_mib("VmHWM"), 1),
        "writes": sum(write.user == OPERATOR for write in cluster.writes(mark)),
    }
    await asyncio.sleep(MINUTE / 4)  # of the pulls too
    row |= {"memory_mib": round(operator.memory_mib(), 1)}
    row["one_more_ms"] = await one_more(cluster, api, 50_000 + finished)
    print(row, file=sys.stderr, flush=True)
    return row


async def one_more(cluster: Cluster, api: Api, first: int) -> dict[str, float]:
    """Create jobs one after the other and delete them again; return the time to their children."""
    mark, jobs = cluster.mark(), {name: fine_tune_job(name, nodes=1) for name in names(ALONE, first)}
    paths = {name: [(FINE_TUNE_JOBS.path(NAMESPACE), job), *children(job, NAMESPACE)] for name, job in jobs.items()}
    wanted = 0
    for name, job in jobs.items():
        await api.post(FINE_TUNE_JOBS.path(NAMESPACE), job)
        wanted += len(paths[name])
        while made(cluster, mark) < wanted:  # noqa: ASYNC110 - the log tells nobody
            await asyncio.sleep(0.1)
    found = latencies(cluster.writes(mark), NAMESPACE, OPERATOR, ALONE)
    for path, manifest in (entry for entries in paths.values() for entry in entries):
        await api.delete(f"{path}/{manifest['metadata']['name']}", {"propagationPolicy": "Background"})
    return percentiles(found, 50, 95)


def made(cluster: Cluster, mark: int) -> int:
    """Return how many objects were created since a mark, events aside."""
    return sum(write.verb == "create" and write.resource != "events" for write in cluster.writes(mark))


async def rest_of(cluster: Cluster, operator: OperatorProcess, leaders: Leaders) -> Json:
    """Return what the operator does in a minute."""
    mark, cpu = cluster.mark(), operator.cpu_seconds()
    leaders.clear()
    await asyncio.sleep(MINUTE)
    return {
        "cpu_share": round((operator.cpu_seconds() - cpu) / MINUTE, 3),
        "memory_mib": round(operator.memory_mib(), 1),
        "writes_per_s": round(sum(write.user == OPERATOR for write in cluster.writes(mark)) / MINUTE, 2),
        **leaders.figures(MINUTE),
    }


if __name__ == "__main__":
    main()
