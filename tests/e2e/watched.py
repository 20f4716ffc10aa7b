"""A job that is applied, trains and succeeds, and one that fails, while a Prometheus scrapes operator and trainers."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster.cluster import REPOSITORY, Cluster
from tests.e2e.jobs import SECONDS, finished, manifest, note
from tests.observability.monitors import Monitors
from tests.observability.prometheus import Prometheus
from tests.operator.world import Json, World, until

JOB = "watched"
FAILED = 'unfreeze_jobs_failed_total{reason="InvalidData"}'


@dataclass(frozen=True)
class Watched:
    """What was seen of the two jobs."""

    prometheus: Prometheus
    world: World
    file: Path
    """The manifest of the job that succeeds."""
    seen: list[Json]
    """Its statuses, the last one at its end."""
    wrong: Json
    """The last status of the other one, whose column does not exist."""
    start: float
    """When the job began, in seconds since the epoch."""
    failed_before: float
    """Jobs that had failed by then: of other tests, under the same operator."""
    scraped: dict[str, list[str]]
    """The targets that answered while it trained, by the names of their monitors."""
    pages: dict[str, str]
    """What each of them answered."""
    described: str
    """What `kubectl describe` says of the job that has succeeded."""


@contextmanager
def watch(cluster: Cluster, world: World, folder: Path) -> Iterator[Watched]:
    """Run both jobs to their ends, the one that fails first."""
    monitors = Monitors(cluster, folder)
    monitors.refresh()
    config = {
        "global": {"evaluation_interval": "1s"},
        "rule_files": _rules(folder),
        "scrape_configs": monitors.scrape_configs(),
    }
    with Prometheus(folder, config) as prometheus:
        until(lambda: prometheus.query("unfreeze_operator_build_info"), "the operator is scraped")
        start, failed_before = time.time(), count(prometheus, FAILED)
        spec = manifest("wrong")["spec"]
        spec["data"]["train"]["columns"]["text"] = "questoin"
        world.create("wrong", spec)
        wrong = finished(world, "wrong", [])
        job = manifest(JOB, evidence={"forgetting": {}})
        job["spec"]["distribution"]["resourcesPerNode"] |= {"limits": {"nvidia.com/gpu": 1}}
        file, seen = folder / "job.yaml", list[Json]()
        file.write_text(yaml.safe_dump(job))
        cluster.kubectl("-n", world.namespace, "apply", "-f", str(file))

        def training() -> dict[str, list[str]] | None:
            note(world, JOB, seen)
            return _training(prometheus, monitors, world.namespace)

        scraped = until(training, "operator and both trainers are scraped", SECONDS)
        pages = {url: _page(url) for urls in scraped.values() for url in urls}
        finished(world, JOB, seen)
        described = cluster.kubectl("-n", world.namespace, "describe", "finetunejob", JOB)
        yield Watched(prometheus, world, file, seen, wrong, start, failed_before, scraped, pages, described)


def _rules(folder: Path) -> list[str]:
    """Copy the rules, evaluated each second: the run takes less than the minute between two evaluations."""
    files = []
    for file in (REPOSITORY / "charts/unfreeze/files/rules").glob("*.yaml"):
        rules = yaml.safe_load(file.read_text())
        for group in rules["groups"]:
            group["interval"] = "1s"
        (folder / file.name).write_text(yaml.safe_dump(rules))
        files.append(str(folder / file.name))
    return files


def _training(prometheus: Prometheus, monitors: Monitors, namespace: str) -> dict[str, list[str]] | None:
    """Return the targets that answer, once both trainers of the job tell of steps."""
    monitors.refresh()
    if len(prometheus.query(f'unfreeze_training_step{{namespace="{namespace}", job_name="{JOB}"}} > 0')) < 2:
        return None
    up: dict[str, list[str]] = {}
    for target in prometheus.targets():
        if target["health"] == "up":
            up.setdefault(target["labels"]["job"], []).append(target["scrapeUrl"])
    return up


def count(prometheus: Prometheus, counter: str) -> float:
    """Return the value of a counter, 0 where nothing was counted yet."""
    ((_, value),) = [series["value"] for series in prometheus.query(f"sum({counter}) or vector(0)")]
    return float(value)


def _page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()
