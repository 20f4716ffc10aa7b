"""Nodes are given back by a gang that finds too few, and taken again after a pause."""

from datetime import timedelta

import pytest

from tests.operator.fakes import NOW, FakeCluster, job, pod, text, unscheduled
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.carried import read_carried
from unfreeze_operator.objects.resources import PODS, RESUMED_ANNOTATION
from unfreeze_operator.objects.views import job_view
from unfreeze_operator.observed.gangs import next_try, patience
from unfreeze_operator.policies import give_back

VIEW = job(nodes=2)
HALF = (lambda: pod(0), lambda: unscheduled(1, "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."))


def world(*pods, view=VIEW):
    cluster = FakeCluster()
    cluster.step(view)
    begin(cluster, pods)
    return cluster


def begin(cluster, pods, at=NOW):
    cluster.job()["status"] = {"startTime": text(at)}
    for make in pods:
        manifest = make()
        manifest["metadata"]["ownerReferences"][0]["uid"] = cluster.job()["metadata"]["uid"]
        cluster.add(PODS, manifest)


def stop(cluster):
    """What the Job controller does when a Job is suspended."""
    cluster.job()["status"] = {}
    for key in [key for key in cluster.objects if key[0] is PODS]:
        del cluster.objects[key]


def carried(cluster):
    return read_carried(job_view(cluster.job()))


def test_nodes_are_given_back_and_taken_again():
    cluster = world(*HALF)
    status = plan(cluster.context(VIEW)).status
    bound = patience(cluster.context(VIEW))
    early = cluster.step(VIEW, status, after=bound - 1)
    assert (early.actions, cluster.job()["spec"]["suspend"]) == ((), False)
    assert early.requeue_after == 1.0
    cluster.step(VIEW, status, after=bound)
    assert cluster.job()["spec"]["suspend"] is True
    assert carried(cluster).given_back == 1
    stop(cluster)
    given = cluster.step(VIEW, status, after=bound)
    assert given.status.phase == "Pending"
    assert given.status.conditions[0].reason == "NodesGivenBack"
    again = (next_try(cluster.context(VIEW)) - NOW).total_seconds()
    assert abs(given.requeue_after - (again - bound)) < 0.001
    assert cluster.step(VIEW, given.status, after=again - 1).actions == ()
    cluster.step(VIEW, given.status, after=again)
    assert cluster.job()["spec"]["suspend"] is False
    assert carried(cluster).given_back_at is None
    begin(cluster, HALF, NOW + timedelta(seconds=again))
    assert patience(cluster.context(VIEW)) != bound, "each try has its own time"
    assert cluster.step(VIEW, given.status, after=again + 1).actions == ()


def test_the_time_to_start_continues_over_all_tries():
    view = job(nodes=2, startupTimeoutSeconds=2000)
    cluster = world(*HALF, view=view)
    status = plan(cluster.context(view)).status
    at = patience(cluster.context(view))
    cluster.step(view, status, after=at)
    stop(cluster)
    status = cluster.step(view, status, after=at).status
    at = (next_try(cluster.context(view)) - NOW).total_seconds()
    status = cluster.step(view, status, after=at).status
    begin(cluster, HALF, NOW + timedelta(seconds=at))
    assert plan(cluster.context(view, status, after=1999)).status.phase == "Pending"
    assert plan(cluster.context(view, status, after=2000)).status.failure.reason == "StartupTimeout"


def test_who_holds_all_or_nothing_waits():
    for pods in ([lambda: pod(0), lambda: pod(1)], [lambda: unscheduled(0, "no"), lambda: unscheduled(1, "no")], []):
        assert give_back.check(world(*pods).context(VIEW, FineTuneJobStatus(), after=1e6)) is None


def test_a_queue_makes_no_such_gangs():
    view = job(nodes=2, queue="team-a")
    assert give_back.check(world(*HALF, view=view).context(view, after=1e6)) is None


def test_a_person_who_resumes_does_not_wait_for_the_pause():
    cluster = world(*HALF)
    status = plan(cluster.context(VIEW)).status
    at = patience(cluster.context(VIEW))
    cluster.step(VIEW, status, after=at)
    stop(cluster)
    held = job(nodes=2, suspend=True, generation=2)
    suspended = cluster.step(held, status, after=at).status
    assert suspended.phase == "Suspended"
    cluster.step(job(nodes=2, generation=3), suspended, after=at + 1)
    assert cluster.job()["spec"]["suspend"] is False
    assert carried(cluster).gang_since is None, "a suspend is a new beginning"


def test_of_two_gangs_that_block_one_another_one_gives_way_first():
    factors = {patience(FakeCluster().context(job(uid=f"uid-{number}"))) for number in range(32)}
    assert len(factors) > 16
    assert 300 <= min(factors) < max(factors) <= 900


def test_a_clock_that_is_ahead_makes_no_pod_of_this_run_one_of_before():
    cluster = world(*HALF)
    cluster.job()["metadata"]["annotations"][RESUMED_ANNOTATION] = text(NOW + timedelta(seconds=2))
    assert job_view(cluster.job()).started == NOW
    assert cluster.children(VIEW.uid).placed_since == NOW


@pytest.mark.parametrize("resumed", ["", "soon"])
def test_a_start_that_the_server_does_not_tell_of_is_when_it_was_resumed(resumed):
    """Kubernetes 1.32 to 1.34.1: the status of a Job that was resumed stays as it was."""
    cluster = world(*HALF)
    status = plan(cluster.context(VIEW)).status
    bound = patience(cluster.context(VIEW))
    cluster.step(VIEW, status, after=bound)
    before = cluster.job()["status"]
    stop(cluster)
    again = (next_try(cluster.context(VIEW)) - NOW).total_seconds()
    cluster.step(VIEW, status, after=again)
    assert cluster.job()["spec"]["suspend"] is False
    if resumed:
        cluster.job()["metadata"]["annotations"][RESUMED_ANNOTATION] = resumed
    begin(cluster, HALF)
    assert cluster.job()["status"] == before
    cluster.step(VIEW, status, after=again + patience(cluster.context(VIEW)) - 1)
    assert cluster.job()["spec"]["suspend"] is bool(resumed), "it gives back at once where nothing tells when it began"
