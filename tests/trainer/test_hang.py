"""How long workers may be silent."""

from datetime import timedelta
from pathlib import Path

import pytest
from torch.distributed.elastic.agent.server.api import RunResult, WorkerState

from tests.trainer.engine_group import pods_job
from tests.trainer.jobs import make_job
from unfreeze_trainer.agent.gang import Gang
from unfreeze_trainer.agent.hang import HangWatch
from unfreeze_trainer.agent.pod import Pod
from unfreeze_trainer.engines.base import PATIENCE, Recipe
from unfreeze_trainer.link import Link


@pytest.mark.parametrize(("given", "patience"), [(None, PATIENCE), (30, PATIENCE), (7200, timedelta(hours=2))])
def test_a_rank_waits_for_another_as_long_as_that_may_be_silent(given, patience):
    policy = {"hangTimeoutSeconds": given} if given else {}
    assert Recipe.of(make_job("/none", "/none.csv", runPolicy=policy)).patience == patience


def test_what_the_job_says_counts():
    watch = HangWatch(30)
    watch.heard(100, "Evaluating", restarted=False)
    assert watch.limit == 30


@pytest.mark.parametrize(("state", "least"), [("Training", 600), ("Evaluating", 1800), ("Exporting", 1800)])
def test_without_it_there_is_a_floor(state, least):
    watch = HangWatch(None)
    assert watch.limit == 1800
    watch.heard(100, state, restarted=True)
    watch.heard(101, state, restarted=False)
    assert watch.limit == least


def test_slow_steps_are_given_time():
    watch = HangWatch(None)
    watch.heard(100, "Training", restarted=True)
    watch.heard(190, "Training", restarted=False)
    watch.heard(195, "Training", restarted=False)
    assert watch.limit == 20 * 90


def test_neither_evaluations_nor_restarts_are_steps():
    watch = HangWatch(None)
    for written, state, restarted in ((0, "Training", True), (1, "Evaluating", False), (901, "Training", False)):
        watch.heard(written, state, restarted=restarted)
    watch.heard(5000, "Training", restarted=True)
    assert watch.limit == 600


def test_the_same_news_is_no_news():
    watch = HangWatch(None)
    watch.heard(100, "Training", restarted=True)
    assert not watch.news(100.000_001)
    assert watch.news(100.5)


def test_a_pod_that_hangs_again_and_again_says_so_in_the_end(tmp_path):
    pod = Pod(index=0, ip="", http_port=0, job_file=Path(), termination_log=Path())
    gang = Gang(pods_job(tmp_path, 0), pod, Link(tmp_path))
    gang.hung(601.2)
    error = gang._ending(RunResult(state=WorkerState.FAILED)).error
    assert (error.reason, error.exit_code) == ("Hang", 1)
    assert error.message.startswith("no step for 601 s")
    gang.workers_starting()
    assert gang._ending(RunResult(state=WorkerState.FAILED)).error.reason == "WorkerFailed"
