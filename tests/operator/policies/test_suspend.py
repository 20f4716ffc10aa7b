"""A job that is to be suspended stops."""

from tests.operator.fakes import NOW, FakeCluster, job, text
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.resources import JOBS
from unfreeze_operator.policies import suspend


def test_the_job_is_suspended_once():
    cluster = FakeCluster()
    cluster.step(job())
    cluster.step(job(suspend=True))
    assert cluster.job()["spec"]["suspend"] is True
    assert suspend.check(cluster.context(job(suspend=True))) is None


def test_the_time_that_it_ran_is_kept_in_the_same_write():
    cluster = FakeCluster()
    cluster.step(job())
    cluster.job()["status"] = {"startTime": text(NOW)}
    (action,) = suspend.check(cluster.context(job(suspend=True), after=30)).actions
    assert '"activeSeconds":30' in action.change["metadata"]["annotations"]["unfreeze.dev/carried"]
    assert action.change["spec"]["suspend"] is True


def test_suspended_in_a_queue_there_is_no_job_to_admit():
    cluster = FakeCluster()
    cluster.step(job(queue="team-a"))
    view = job(queue="team-a", suspend=True)
    cluster.step(view)
    assert cluster.of(JOBS) == []
    made = plan(cluster.context(view))
    assert (made.actions, made.status.phase) == ((), "Suspended")
