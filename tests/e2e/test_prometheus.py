"""A real Prometheus scrapes operator and trainers as the chart's monitors say, while a job trains and another fails."""

from __future__ import annotations

import pytest

from tests.e2e.watched import FAILED, JOB, Watched, count
from tests.observability.dashboards import load, queries
from tests.observability.prometheus import promtool
from tests.operator.world import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]
QUERIES = [
    pytest.param(expression, id=f"{name}: {what}")
    for name, board in load().items()
    for what, expression in queries(board)
]


def test_the_monitors_select_the_operator_and_every_trainer_and_nothing_else(watched: Watched) -> None:
    assert {name: len(urls) for name, urls in watched.scraped.items()} == {
        "unfreeze-operator": 1, "unfreeze-trainers": 2,
    }  # fmt: skip


def test_a_trainers_series_name_its_job_and_its_pod(watched: Watched) -> None:
    steps = watched.prometheus.query_range("unfreeze_training_step", watched.start)
    named = [(series["metric"]["namespace"], series["metric"]["job_name"]) for series in steps]
    assert named == [(watched.world.namespace, JOB)] * 2
    assert len({series["metric"]["pod"] for series in steps}) == 2


def test_promtool_finds_nothing_in_what_they_serve(watched: Watched) -> None:
    for url, page in watched.pages.items():
        done = promtool("check", "metrics", stdin=page)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), url


@pytest.mark.parametrize("expression", QUERIES)
def test_every_panel_shows_data(watched: Watched, expression: str) -> None:
    for name, value in (("namespace", watched.world.namespace), ("job_name", JOB), ("__rate_interval", "15s")):
        expression = expression.replace(f"${name}", value)
    series = watched.prometheus.query_range(expression, watched.start)
    assert any(float(value) == float(value) for each in series for _, value in each["values"])


def test_what_the_series_tell_is_what_the_status_tells(watched: Watched) -> None:
    status = watched.world.status(JOB)
    labels = f'{{namespace="{watched.world.namespace}", job_name="{JOB}"}}'
    phases = watched.prometheus.query_range(f"unfreeze_job_training_phase{labels}", watched.start)
    seen, names = (
        {series["metric"]["training_phase"] for series in phases},
        [phase["name"] for phase in status["phases"]],
    )
    assert names[-1] in seen
    assert seen <= set(names)  # a phase whose blocks have computed already may be over between two looks
    seconds = watched.prometheus.query(f"unfreeze_job_accelerator_seconds_total{labels}")
    assert [float(series["value"][1]) for series in seconds] == [status["acceleratorSeconds"]]
    assert count(watched.prometheus, FAILED) == watched.failed_before + 1


def test_the_series_of_a_job_are_deleted_with_it(watched: Watched) -> None:
    labels = f'{{__name__=~"unfreeze_job_.+", namespace="{watched.world.namespace}", job_name="{JOB}"}}'
    assert watched.prometheus.query(labels)
    watched.world.delete("finetunejobs", JOB)
    until(lambda: not watched.prometheus.query(labels), "no series of the deleted job")
