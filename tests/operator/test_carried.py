"""Counts go on over pods that nobody saw fail, over suspends, and over Jobs that are recreated."""

import json
from dataclasses import replace

import pytest

from tests.operator.fakes import FakeCluster, job
from tests.operator.simulation import Simulation
from tests.support.newer import planted
from unfreeze_operator.objects.carried import Carried, read_carried
from unfreeze_operator.objects.views import job_view


def fail_unseen(sim, times=1):
    """Let a pod fail and be replaced, and let somebody delete it, before the operator looks."""
    for _ in range(times):
        raw = sim.running()[0]
        sim.end(raw, 1)
        sim.control()
        sim.server.remove("pods", raw["metadata"]["name"])
        sim.node()


def restarts(sim):
    return sim.status["restarts"]["pods"]


@pytest.fixture
def sim():
    sim = Simulation(nodes=2, backoffLimit=9)
    sim.until(lambda: sim.status.get("phase") == "Running")
    return sim


def test_pods_that_failed_and_are_gone_before_the_operator_looks_count(sim):
    fail_unseen(sim, times=2)
    sim.restart()
    sim.until(lambda: restarts(sim) == 2, most=3)
    for raw in sim.running():
        sim.end(raw, 0)
    sim.until(lambda: sim.status["phase"] == "Succeeded")
    assert restarts(sim) == 2


def test_each_counts_once_over_suspends_and_new_jobs(sim):
    fail_unseen(sim)
    sim.until(lambda: restarts(sim) == 1, most=3)
    for change in ({}, {"distribution": {"numNodes": 3}}, {}):
        sim.change(runPolicy={"suspend": True})
        sim.until(lambda: sim.status["phase"] == "Suspended")
        sim.change(runPolicy={"suspend": False}, **change)
        sim.until(lambda: sim.status["phase"] == "Running")
    assert restarts(sim) == 1
    fail_unseen(sim)
    sim.until(lambda: restarts(sim) == 2, most=3)


def test_the_last_failure_of_a_job_replaces_nothing():
    sim = Simulation(nodes=1, backoffLimit=1)
    sim.until(lambda: sim.status.get("phase") == "Running")
    fail_unseen(sim)
    sim.end(sim.running()[0], 1)
    sim.until(lambda: sim.status["phase"] == "Failed")
    assert restarts(sim) == 1


def test_what_a_later_operator_carries_besides_hides_nothing():
    cluster = FakeCluster()
    cluster.step(job())
    carried = Carried(accelerator_seconds=7, pod_restarts=2)
    view = replace(job_view(cluster.job()), carried=json.dumps(planted(json.loads(carried.to_json()))))
    assert read_carried(view) == carried


def test_a_pod_that_stopped_for_a_suspend_and_is_not_gone_yet_replaced_nothing(sim):
    sim.change(runPolicy={"suspend": True})
    sim.until(lambda: "deletionTimestamp" in sim.pods()[0]["metadata"])
    for raw in sim.running():
        sim.end(raw, 143)
    sim.control()
    for suspend, phase in ((True, "Suspended"), (False, "Pending")):
        sim.change(runPolicy={"suspend": suspend})
        for _ in range(3):
            sim.sync()
            sim.reconcile()
            sim.control()
        assert sim.status["phase"] == phase
    assert len(sim.pods()) == 4
    assert restarts(sim) == 0
