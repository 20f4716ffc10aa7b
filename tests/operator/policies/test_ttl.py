"""A finished job is deleted on time."""

from tests.operator.fakes import NOW, FakeCluster, job
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.resources import FINE_TUNE_JOBS
from unfreeze_operator.policies import ttl


def test_ttl_wakes_up_exactly_and_deletes_the_job():
    view = job(ttlSecondsAfterFinished=60)
    done = FineTuneJobStatus(phase="Succeeded", completion_time=NOW, observed_generation=1)
    early = plan(FakeCluster().context(view, done, after=59))
    assert (early.actions, early.requeue_after) == ((), 1.0)
    (action,) = plan(FakeCluster().context(view, done, after=60)).actions
    assert (action.resource, action.view.uid) == (FINE_TUNE_JOBS, "u1")


def test_without_a_ttl_or_an_end_there_is_nothing_to_do():
    done = FineTuneJobStatus(phase="Succeeded", completion_time=NOW)
    assert ttl.check(FakeCluster().context(job(), done)) is None
    assert ttl.check(FakeCluster().context(job(ttlSecondsAfterFinished=0))) is None
