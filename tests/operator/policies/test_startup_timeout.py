"""A gang that does not become complete in time ends."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.operator.fakes import NOW, FakeCluster, job, pod, text, unheard, unscheduled
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.objects.resources import PODS
from unfreeze_operator.policies import startup_timeout

VIEW = job(nodes=2, startupTimeoutSeconds=30)


def world(*pods, view=VIEW):
    cluster = FakeCluster()
    cluster.step(view)
    raw = cluster.job()
    raw["status"] = {"startTime": text(NOW)}
    put(cluster, *pods)
    return cluster


def put(cluster, *pods):
    for key in [key for key in cluster.objects if key[0] is PODS]:
        del cluster.objects[key]
    for manifest in pods:
        manifest["metadata"]["ownerReferences"][0]["uid"] = cluster.job()["metadata"]["uid"]
        cluster.add(PODS, manifest)


def test_it_ends_on_time_and_says_who_waits_for_what():
    cluster = world(pod(0), unscheduled(1, "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."))
    first = plan(cluster.context(VIEW)).status
    early = plan(cluster.context(VIEW, first, after=29))
    assert (early.status.phase, early.requeue_after) == ("Pending", 1.0)
    late = plan(cluster.context(VIEW, early.status, after=30)).status
    assert (late.phase, late.failure.reason) == ("Failed", "StartupTimeout")
    assert late.failure.pod == "job-1-pending"
    assert "1 of 2 pods ran" in late.failure.message
    assert "Insufficient nvidia.com/gpu" in late.failure.message
    assert late.waiting == []


def test_a_gang_that_is_complete_has_all_the_time():
    assert startup_timeout.check(world(pod(0), pod(1)).context(VIEW, after=1e6)) is None


def test_the_time_begins_anew_when_a_pod_is_lost():
    cluster = world(pod(0), pod(1))
    whole = plan(cluster.context(VIEW, after=10)).status
    put(cluster, pod(0), unscheduled(1, "no"))
    lost = plan(cluster.context(VIEW, whole, after=1000)).status
    assert lost.conditions[0].last_transition_time == NOW + timedelta(seconds=1000)
    assert plan(cluster.context(VIEW, lost, after=1029)).requeue_after == 1.0
    assert plan(cluster.context(VIEW, lost, after=1030)).status.failure.reason == "StartupTimeout"


def test_neither_a_queue_nor_a_suspend_counts():
    cluster = world(unscheduled(0, "no"))
    assert (
        startup_timeout.check(cluster.context(job(nodes=2, startupTimeoutSeconds=30, suspend=True), after=99)) is None
    )
    cluster.job()["status"] = {}
    assert startup_timeout.check(cluster.context(VIEW, after=99)) is None
    assert startup_timeout.check(world(unscheduled(0, "no"), view=job()).context(job(), after=1e6)) is None


@pytest.mark.parametrize("reason", ["LeaderSilent", "NodeUnreachable"])
def test_while_all_pods_are_there_and_nobody_hears_of_them_no_time_runs(reason):
    """Else a gang that was not heard of for longer would end, or give its nodes back, as soon as it loses a pod."""
    quiet = (pod(0), pod(1)) if reason == "LeaderSilent" else (pod(0), unheard(pod(1)))
    cluster = world(*quiet)
    whole = plan(world(pod(0), pod(1)).context(VIEW)).status
    unknown = plan(replace(cluster.context(VIEW, whole, after=10), silent=reason == "LeaderSilent")).status
    assert (unknown.phase, unknown.conditions[0].reason) == ("Running", reason)
    put(cluster, pod(0), unscheduled(1, "no"))
    lost = cluster.step(VIEW, unknown, after=1000)
    assert (lost.status.phase, lost.status.conditions[0].reason) == ("Running", "Unschedulable")
    assert not cluster.job()["spec"]["suspend"], "it has its patience too"
    assert lost.status.conditions[0].last_transition_time == NOW + timedelta(seconds=1000)
    assert plan(cluster.context(VIEW, lost.status, after=1029)).status.failure is None
    assert plan(cluster.context(VIEW, lost.status, after=1030)).status.failure.reason == "StartupTimeout"
