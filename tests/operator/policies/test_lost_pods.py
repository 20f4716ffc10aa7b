"""Pods that are deleted and do not go."""

from dataclasses import replace
from datetime import timedelta

from tests.operator.fakes import NOW, FakeCluster, deleted, job, pod, unheard, unscheduled
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.actions import Abandon
from unfreeze_operator.objects.resources import PODS
from unfreeze_operator.objects.views import pod_view
from unfreeze_operator.observed.failure import asked_to_stop, first_failed, pod_failure
from unfreeze_operator.policies import lost_pods

GONE_BY = NOW + timedelta(seconds=120)


def world(*pods, owner=""):
    cluster = FakeCluster()
    cluster.step(job())
    for manifest in pods:
        manifest["metadata"]["ownerReferences"][0]["uid"] = owner or cluster.job()["metadata"]["uid"]
        cluster.add(PODS, manifest)
    return cluster


def abandoned(made):
    return [action.view.name for action in made.actions if isinstance(action, Abandon)]


def test_a_pod_is_given_up_when_its_node_has_let_its_time_pass():
    cluster = world(deleted(pod(0), GONE_BY))
    early = plan(cluster.context(job(), after=179))
    assert (abandoned(early), early.requeue_after) == ([], 1.0)
    assert abandoned(plan(cluster.context(job(), after=180))) == ["job-0-running"]


def test_nobody_uses_the_grace_period_on_a_node_that_is_not_heard_of():
    gone = deleted(unheard(pod(0)), GONE_BY)
    gone["metadata"]["deletionGracePeriodSeconds"] = 120
    early = plan(world(gone).context(job(), after=59))
    assert (abandoned(early), early.requeue_after) == ([], 1.0)
    assert abandoned(plan(world(gone).context(job(), after=60))) == ["job-0-running"]


def test_one_that_was_failed_but_not_deleted_is_deleted():
    assert abandoned(plan(world(deleted(pod(0, "Failed"), GONE_BY)).context(job(), after=180))) == ["job-0-failed"]


def test_zero_is_never():
    context = replace(world(deleted(pod(0), GONE_BY)).context(job(), after=1e6), lost_pod_grace=0)
    assert lost_pods.check(context) is None


def test_a_pod_that_nobody_deletes_is_left_alone():
    assert lost_pods.check(world(pod(0), unscheduled(0, "full")).context(job(), after=1e6)) is None


def test_without_a_node_there_is_nothing_to_wait_for():
    assert abandoned(plan(world(deleted(unscheduled(0, "full"), NOW)).context(job()))) == ["job-0-pending"]


def test_pods_of_an_earlier_job_do_not_stand_in_the_way_for_ever():
    made = plan(world(deleted(pod(0), GONE_BY), owner="earlier").context(job(), after=180))
    assert abandoned(made) == ["job-0-running"]


def test_also_when_the_job_has_ended():
    done = FineTuneJobStatus(phase="Failed", completion_time=NOW)
    assert abandoned(plan(world(deleted(pod(0), GONE_BY)).context(job(), done, after=180))) == ["job-0-running"]


def test_a_lost_node_is_a_reason_and_a_suspend_before_the_start_is_none():
    lost, idle = (deleted(pod(0, "Failed")) for _ in range(2))
    lost["status"] |= {"message": "deleted", "reason": "NodeLost", "containerStatuses": []}
    idle["status"] |= {"reason": "NeverScheduled", "containerStatuses": []}
    raw = [pod_view({**raw, "metadata": {**raw["metadata"], "resourceVersion": "1"}}) for raw in (lost, idle)]
    failure = pod_failure(first_failed(raw))
    assert (failure.reason, failure.log_tail) == ("NodeLost", None)
    assert asked_to_stop(raw[1])
