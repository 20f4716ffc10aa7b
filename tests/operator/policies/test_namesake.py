"""What an earlier job of the name left has to go first."""

from tests.operator.fakes import NOW as SOON
from tests.operator.fakes import FakeCluster, job, pod, text
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.resources import JOBS, PODS
from unfreeze_operator.policies import namesake


def test_children_of_an_earlier_job_are_waited_for():
    cluster = FakeCluster()
    cluster.step(job(uid="earlier"))
    context = cluster.context(job(uid="later"))
    assert context.children.job is None  # its state would be taken for the later job's own
    verdict = namesake.check(context)
    assert (verdict.reason, verdict.stop, verdict.actions) == ("WaitingForDeletion", True, ())
    assert "unless it is an earlier job of this name" in verdict.message
    cluster.job()["metadata"]["deletionTimestamp"] = text(SOON)
    assert namesake.check(cluster.context(job(uid="later"))).message == "Job job-train is still being deleted"


def test_a_pod_of_a_neighbour_that_carries_the_label_is_not_said_to_go():
    cluster = FakeCluster()
    cluster.add(PODS, pod(owner="", name="stray"))
    verdict = namesake.check(cluster.context(job()))
    assert verdict.message.startswith("Pod stray has this job's label and belongs to something else")


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
    del cluster.objects[JOBS, "job-train"]
    assert [action.resource for action in plan(cluster.context(job())).actions] == [JOBS]
