"""The Job is made last."""

import pytest

from tests.operator.fakes import FakeCluster, job
from unfreeze_api.contracts.status import FineTuneJobStatus, Restarts
from unfreeze_operator.objects.views import job_view
from unfreeze_operator.policies import child_job


def test_a_suspended_job_is_made_suspended():
    (action,) = child_job.check(FakeCluster().context(job(suspend=True))).actions
    assert action.manifest["spec"]["suspend"] is True


def test_but_not_in_a_queue_that_would_start_it():
    assert child_job.check(FakeCluster().context(job(suspend=True, queue="team-a"))).actions == ()


def test_totals_go_on_when_somebody_deleted_it():
    status = FineTuneJobStatus(accelerator_seconds=90, restarts=Restarts(pods=2, in_place=1))
    cluster = FakeCluster()
    cluster.step(job(), status)
    carried = job_view(cluster.job()).carried
    assert all(part in carried for part in ('"acceleratorSeconds":90', '"podRestarts":2', '"inPlaceRestarts":1'))


@pytest.mark.parametrize(
    "change",
    [
        {"parallelism": 1},
        {"parallelism": 3},
        {"completions": 1, "parallelism": 1},
        {"completions": 3},
        {"backoffLimit": 9},
    ],
)
def test_what_somebody_changed_is_changed_back(change):
    view = job(nodes=2)
    cluster = FakeCluster()
    cluster.step(view)
    before = dict(cluster.job()["spec"])
    assert child_job.check(cluster.context(view)) is None
    cluster.job()["spec"] |= change
    cluster.step(view)
    assert cluster.job()["spec"] == before


def test_a_queue_may_start_fewer_pods():
    view = job(nodes=2, queue="team-a")
    cluster = FakeCluster()
    cluster.step(view)
    cluster.job()["spec"]["parallelism"] = 1
    assert child_job.check(cluster.context(view)) is None
