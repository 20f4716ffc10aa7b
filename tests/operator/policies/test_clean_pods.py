"""What becomes of a finished job's pods."""

import pytest

from tests.operator.fakes import NOW, FakeCluster, job
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.actions import Delete
from unfreeze_operator.objects.resources import JOBS
from unfreeze_operator.policies import clean_pods

DONE = FineTuneJobStatus(phase="Succeeded", completion_time=NOW, observed_generation=1)


def built(view):
    cluster = FakeCluster()
    cluster.step(view)
    return cluster


def test_all_deletes_the_job_once_its_end_is_written():
    view = job(cleanPodPolicy="All")
    cluster = built(view)
    assert clean_pods.check(cluster.context(view)) is None
    (action,) = plan(cluster.context(view, DONE)).actions
    assert isinstance(action, Delete)
    assert action.resource is JOBS
    cluster.step(view, DONE)
    assert plan(cluster.context(view, DONE)).actions == ()


@pytest.mark.parametrize("policy", ["Running", "None"])
def test_the_others_keep_it_and_end_it_where_it_has_not_ended(policy):
    view = job(cleanPodPolicy=policy)
    cluster = built(view)
    cluster.step(view, DONE)
    assert cluster.job()["spec"]["activeDeadlineSeconds"] == 1
    assert plan(cluster.context(view, DONE)).actions == ()


def test_a_job_that_has_ended_is_left_alone():
    cluster = built(job())
    cluster.job()["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    assert plan(cluster.context(job(), DONE)).actions == ()


def test_a_failure_that_can_mend_keeps_its_pods():
    view = job(cleanPodPolicy="All")
    assert clean_pods.check(built(view).context(view, FineTuneJobStatus(phase="Failed"))) is None
