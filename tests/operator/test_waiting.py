"""Which pod waits for what, from what its own status says."""

from datetime import timedelta
from typing import get_args

import pytest

from tests.operator.fakes import NOW, FakeCluster, job, pod, text, unheard, unscheduled
from unfreeze_api.contracts.reasons import WaitingReason
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.kueue import not_admitted
from unfreeze_operator.objects.resources import PODS
from unfreeze_operator.objects.views import pod_view

SCHEDULED = {"type": "PodScheduled", "status": "True"}
MOUNTED = {"type": "PodReadyToStartContainers", "status": "True"}


def preparing(index=0, *, mounted=True, reason="ContainerCreating", message=""):
    raw = pod(index, "Pending")
    raw["status"]["conditions"] = [SCHEDULED, {**MOUNTED, "status": str(mounted)}]
    state = {"waiting": {"reason": reason, "message": message}}
    raw["status"]["containerStatuses"] = [{"name": "trainer", "image": "r/trainer:1", "state": state}]
    return raw


def view(raw):
    return pod_view(raw | {"metadata": raw["metadata"] | {"uid": "u", "resourceVersion": "1"}})


CASES = {
    "Unschedulable": unscheduled(0, "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."),
    "SchedulingGated": unscheduled(0, "Scheduling is blocked due to non-empty scheduling gates", "SchedulingGated"),
    "ClaimNotFound": unscheduled(0, 'persistentvolumeclaim "models" not found'),
    "ClaimPending": unscheduled(
        0, "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"
    ),
    "ImagePull": preparing(reason="ErrImagePull", message="not found"),
    "ConfigError": preparing(reason="CreateContainerConfigError", message='secret "hub" not found'),
    "StartError": preparing(reason="RunContainerError", message='exec: "unfreeze-trainer": not found'),
    "VolumesNotReady": preparing(mounted=False),
    "ContainerCreating": preparing(),
}


OF_GROUPS = {"PodGroupMissing", "PodGroupIncomplete"}
"""What no pod says of itself: policies/test_pod_group.py."""


@pytest.mark.parametrize("reason", sorted(set(get_args(WaitingReason)) - OF_GROUPS))
def test_each_cause_has_its_word(reason):
    found = view(CASES[reason]).waiting
    assert found.reason == reason
    assert found.message


def test_pulling_and_backing_off_say_the_same():
    pulling = preparing(reason="ErrImagePull", message="rpc error: not found")
    back_off = preparing(
        reason="ImagePullBackOff", message='Back-off pulling image "x": ErrImagePull: rpc error: not found'
    )
    assert view(pulling) == view(back_off)
    assert view(pulling).waiting.message == "image r/trainer:1: rpc error: not found"


def test_a_pod_that_runs_or_ended_waits_for_nothing():
    assert view(pod(0)).waiting is None
    assert view(pod(0, "Failed", code=1)).waiting is None


def test_the_trainers_container_counts_whatever_stands_before_it():
    raw = preparing(reason="CreateContainerConfigError", message="no secret")
    raw["status"]["containerStatuses"].insert(0, {"name": "proxy", "state": {"running": {}}})
    assert view(raw).waiting.reason == "ConfigError"


@pytest.mark.parametrize("where", ["initContainerStatuses", "containerStatuses"])
def test_what_the_cluster_has_put_into_the_pod_may_be_what_does_not_start(where):
    raw = preparing(reason="PodInitializing")
    stuck = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    raw["status"].setdefault(where, []).append({"name": "vault-agent", "image": "r/agent:1", "state": stuck})
    found = view(raw).waiting
    assert (found.reason, found.message) == ("ImagePull", "image r/agent:1: no such image")


def test_a_gate_that_the_cluster_has_put_into_the_pod_is_no_dead_node():
    raw = unheard(pod(0))
    assert view(raw).unheard
    raw["status"]["conditions"][-1]["reason"] = "ReadinessGatesNotReady"
    assert not view(raw).unheard


def observed(*pods, after=0, nodes=2):
    fine_tune_job = job(nodes=nodes)
    cluster = FakeCluster()
    cluster.step(fine_tune_job)
    raw = cluster.job()
    raw["status"] = {"startTime": text(NOW)}
    for manifest in pods:
        manifest["metadata"]["ownerReferences"][0]["uid"] = raw["metadata"]["uid"]
        cluster.add(PODS, manifest)
    return plan(cluster.context(fine_tune_job, after=after))


def running(made):
    return next((c.reason, c.message) for c in made.status.conditions if c.type == "Running")


def test_the_condition_names_the_first_and_the_list_the_others():
    made = observed(*(unscheduled(index, f"full {index}") for index in range(20)), nodes=20)
    assert running(made) == ("Unschedulable", "job-0-pending: full 0 (and 19 more)")
    assert [found.pod for found in made.status.waiting] == [f"job-{index}-pending" for index in range(16)]


def test_preparing_is_worth_a_word_after_a_while():
    made = observed(preparing(0), preparing(1, mounted=False), after=59)
    assert (running(made)[0], made.status.waiting, made.requeue_after) == ("PodsPending", [], 1.0)
    made = observed(preparing(0), preparing(1, mounted=False), after=60)
    assert [found.reason for found in made.status.waiting] == ["ContainerCreating", "VolumesNotReady"]


def test_pods_that_are_not_made_are_noticed():
    assert observed(after=9).requeue_after == 1.0
    made = observed(unscheduled(0, "full"), after=10)
    assert running(made)[0] == "Unschedulable"
    made = observed(pod(0), after=10)
    assert running(made) == (
        "PodsMissing",
        "1 pod cannot be created; a quota or an admission policy? `kubectl describe job job-train` says why",
    )
    assert made.status.phase == "Pending"


def test_a_lost_pod_that_cannot_come_back_says_why():
    whole = observed(pod(0), pod(1)).status
    assert whole.phase == "Running"
    fine_tune_job = job(nodes=2)
    cluster = FakeCluster()
    cluster.step(fine_tune_job)
    cluster.job()["status"] = {"startTime": text(NOW), "active": 2}
    for manifest in (pod(0), unscheduled(1, "full")):
        manifest["metadata"]["ownerReferences"][0]["uid"] = cluster.job()["metadata"]["uid"]
        cluster.add(PODS, manifest)
    made = plan(cluster.context(fine_tune_job, whole, after=timedelta(hours=1).total_seconds()))
    assert (made.status.phase, running(made)) == ("Running", ("Unschedulable", "job-1-pending: full"))


def test_a_lost_pod_that_is_not_made_anew_is_noticed_after_a_minute():
    """A quota that was lowered, a namespace that has become stricter: the Job alone has events of that."""
    fine_tune_job = job(nodes=2)
    cluster = FakeCluster()
    cluster.step(fine_tune_job)
    cluster.job()["status"] = {"startTime": text(NOW), "active": 1}
    cluster.add(PODS, pod(0, owner=cluster.job()["metadata"]["uid"]))
    status = observed(pod(0), pod(1)).status
    for after, reason in (
        (100, "PodsRestarting"),
        (159, "PodsRestarting"),
        (160, "PodsMissing"),
        (300, "PodsMissing"),
    ):
        made = plan(cluster.context(fine_tune_job, status, after=after))
        status = made.status
        assert (status.phase, running(made)[0]) == ("Running", reason)
        assert after >= 160 or made.requeue_after == 160 - after
    assert running(made)[1] == (
        "1 pod cannot be created anew; a quota, an admission policy, or a pause after failures?"
        " `kubectl describe job job-train` says why"
    )


def test_a_pod_that_failed_and_is_not_made_anew_is_noticed_too():
    failed = pod(0, "Failed", code=1, ended=NOW + timedelta(seconds=300))
    assert running(observed(failed, nodes=1, after=359))[0] == "PodsPending"
    assert running(observed(failed, nodes=1, after=360))[0] == "PodsMissing"


def test_admission_checks_of_kueue_are_named():
    reserved = [{"type": "QuotaReserved", "status": "True"}]
    checks = [
        {"name": "capacity", "state": "Pending", "message": "3 minutes left"},
        {"name": "budget", "state": "Ready"},
        {"name": "remote", "state": "Retry", "message": "no cluster answers"},
    ]
    assert not_admitted(reserved, checks) == (
        "quota is reserved; admission check capacity is Pending, admission check remote is Retry (no cluster answers)"
    )
    assert not_admitted(reserved) == "quota is reserved; its admission checks are not done"
    assert not_admitted([*reserved, {"type": "Admitted", "status": "True"}], checks) == ""
