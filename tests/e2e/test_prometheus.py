"""A real Prometheus scrapes operator and trainers as the chart's monitors say, while a job trains and another fails."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.cluster.cluster import REPOSITORY, Cluster
from tests.e2e.conftest import workplace
from tests.e2e.test_apply import SECONDS, finished, manifest
from tests.observability.dashboards import load, queries
from tests.observability.monitors import Monitors
from tests.observability.prometheus import Prometheus, promtool
from tests.operator.world import World, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]
JOB = "watched"
NAMESPACE = "watched"
QUERIES = [
    pytest.param(expression, id=f"{name}: {what}")
    for name, board in load().items()
    for what, expression in queries(board)
]
FAILED = 'unfreeze_jobs_failed_total{reason="InvalidData"}'


@dataclass(frozen=True)
class Scraped:
    """What Prometheus knows after the run."""

    prometheus: Prometheus
    world: World
    start: float
    """When the job began, in seconds since the epoch."""
    failed_before: float
    """Jobs that had failed by then: of other tests, under the same operator."""
    scraped: dict[str, list[str]]
    """The targets that answered while it trained, by the names of their monitors."""
    pages: dict[str, str]
    """What each of them answered."""


@pytest.fixture(scope="module")
def watched(installed: Cluster, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    folder = tmp_path_factory.mktemp("prometheus")
    monitors = Monitors(installed, folder)
    monitors.refresh()
    config = {
        "global": {"evaluation_interval": "1s"},
        "rule_files": _rules(folder),
        "scrape_configs": monitors.scrape_configs(),
    }
    installed.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    installed.wait_for(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default", bool)
    with workplace(installed, NAMESPACE, prepared, folder) as world, Prometheus(folder, config) as prometheus:
        until(lambda: prometheus.query("unfreeze_operator_build_info"), "the operator is scraped")
        start, failed_before = time.time(), _count(prometheus, FAILED)
        wrong = manifest("wrong")["spec"]
        wrong["data"]["train"]["columns"]["text"] = "questoin"
        world.create("wrong", wrong)
        assert finished(world, "wrong", [])["phase"] == "Failed"
        spec = manifest(JOB)["spec"]
        spec["distribution"]["resourcesPerNode"] = {"limits": {"nvidia.com/gpu": 1}}
        world.create(JOB, spec)
        scraped = until(lambda: _training(prometheus, monitors), "operator and both trainers are scraped", SECONDS)
        pages = {url: _page(url) for urls in scraped.values() for url in urls}
        status = finished(world, JOB, [])
        assert status["phase"] == "Succeeded", status
        yield Scraped(prometheus, world, start, failed_before, scraped, pages)
    installed.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}")


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


def _training(prometheus: Prometheus, monitors: Monitors) -> dict[str, list[str]] | None:
    """Return the targets that answer, once both trainers of the job tell of steps."""
    monitors.refresh()
    if len(prometheus.query(f'unfreeze_training_step{{namespace="{NAMESPACE}", job_name="{JOB}"}} > 0')) < 2:
        return None
    up: dict[str, list[str]] = {}
    for target in prometheus.targets():
        if target["health"] == "up":
            up.setdefault(target["labels"]["job"], []).append(target["scrapeUrl"])
    return up


def _count(prometheus: Prometheus, counter: str) -> float:
    """Return the value of a counter, 0 where nothing was counted yet."""
    ((_, value),) = [series["value"] for series in prometheus.query(f"sum({counter}) or vector(0)")]
    return float(value)


def _page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def test_the_monitors_select_the_operator_and_every_trainer_and_nothing_else(watched: Scraped) -> None:
    assert {name: len(urls) for name, urls in watched.scraped.items()} == {
        "unfreeze-operator": 1, "unfreeze-trainers": 2,
    }  # fmt: skip


def test_a_trainers_series_name_its_job_and_its_pod(watched: Scraped) -> None:
    steps = watched.prometheus.query_range("unfreeze_training_step", watched.start)
    named = [(series["metric"]["namespace"], series["metric"]["job_name"]) for series in steps]
    assert named == [(NAMESPACE, JOB)] * 2
    assert len({series["metric"]["pod"] for series in steps}) == 2


def test_promtool_finds_nothing_in_what_they_serve(watched: Scraped) -> None:
    for url, page in watched.pages.items():
        done = promtool("check", "metrics", stdin=page)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), url


@pytest.mark.parametrize("expression", QUERIES)
def test_every_panel_shows_data(watched: Scraped, expression: str) -> None:
    for name, value in (("namespace", NAMESPACE), ("job_name", JOB), ("__rate_interval", "15s")):
        expression = expression.replace(f"${name}", value)
    series = watched.prometheus.query_range(expression, watched.start)
    assert any(float(value) == float(value) for each in series for _, value in each["values"])


def test_what_the_series_tell_is_what_the_status_tells(watched: Scraped) -> None:
    status = watched.world.status(JOB)
    labels = f'{{namespace="{NAMESPACE}", job_name="{JOB}"}}'
    phases = watched.prometheus.query_range(f"unfreeze_job_training_phase{labels}", watched.start)
    assert {series["metric"]["training_phase"] for series in phases} == {phase["name"] for phase in status["phases"]}
    seconds = watched.prometheus.query(f"unfreeze_job_accelerator_seconds_total{labels}")
    assert [float(series["value"][1]) for series in seconds] == [status["acceleratorSeconds"]]
    assert _count(watched.prometheus, FAILED) == watched.failed_before + 1


def test_the_series_of_a_job_are_deleted_with_it(watched: Scraped) -> None:
    labels = f'{{__name__=~"unfreeze_job_.+", namespace="{NAMESPACE}", job_name="{JOB}"}}'
    assert watched.prometheus.query(labels)
    watched.world.delete("finetunejobs", JOB)
    until(lambda: not watched.prometheus.query(labels), "no series of the deleted job")
