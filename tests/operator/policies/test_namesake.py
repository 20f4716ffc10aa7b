"""What an earlier job of the name left has to go first."""

from tests.operator.fakes import NOW as SOON
from tests.operator.fakes import FakeCluster, job, pod, text
from unfreeze_operator.plan import plan
from unfreeze_operator.policies import namesake
from unfreeze_operator.resources import JOBS, PODS


def test_children_of_an_earlier_job_are_waited_for():
    cluster = FakeCluster()
    cluster.step(job(uid="earlier"))
    context = cluster.context(job(uid="later"))
    assert context.children.job is None  # its state would be taken for the later job's own
    verdict = namesake.check(context)
    assert (verdict.reason, verdict.stop, verdict.actions) == ("WaitingForDeletion", True, ())
    assert "earlier job" in verdict.message


def test_pods_of_an_earlier_job_would_answer_to_the_same_names():
    cluster = FakeCluster()
    cluster.add(PODS, pod(owner="earlier"))
    made = plan(cluster.context(job()))
    assert made.actions == ()
    assert made.status.conditions[0].reason == "WaitingForDeletion"


def test_its_own_child_that_is_being_deleted_is_waited_for_too():
    cluster = FakeCluster()
    cluster.step(job())
    cluster.job()["metadata"]["deletionTimestamp"] = text(SOON)
    assert plan(cluster.context(job())).actions == ()
    del cluster.objects[JOBS, "job"]
    assert [action.resource for action in plan(cluster.context(job())).actions] == [JOBS]
