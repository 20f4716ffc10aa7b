"""An API server that is older after a restart: it answers lists as they were, and tells nothing, but writes reach the present.

As where one of several servers has lost its connection to etcd's leader, or etcd was restored. By what it reads the operator may
have to do what is long done, or was taken back; that must not reach children which have changed since.
"""

import time

import pytest

from tests.operator.world import GROUPS, spec, until
from unfreeze_operator.objects.resources import SELECTOR

pytestmark = pytest.mark.cluster

KINDS = ("finetunejobs", "jobs", "pods", "services", "configmaps", "networkpolicies")


def lists(cluster):
    """Return what an operator would list now."""
    found = {}
    for kind in KINDS:
        selector = "" if kind == "finetunejobs" else f"?labelSelector={SELECTOR.replace('=', '%3D')}"
        found[kind] = cluster.get(f"{GROUPS.get(kind, '/api/v1')}/{kind}{selector}")
    return found


def start_in(operator, proxy, past):
    """Start an operator that reads the past, and let it look at every job."""
    operator.kill()
    proxy.past = past
    before = len(proxy.calls)
    operator.start()
    until(lambda: operator.metric("unfreeze_reconcile_duration_seconds_count"), "it has looked")
    time.sleep(1)  # a write that is wrong has to have its time
    return [call for call in proxy.calls[before:] if call.verb in ("create", "patch", "apply", "delete")]


def test_a_resume_that_was_taken_back_starts_no_pod(faulty_operator, proxy, world, operator_cluster):
    world.create(suspend=True, fake={"holdAt": 1})
    faulty_operator.start()
    world.wait_phase("Suspended")
    faulty_operator.kill()
    world.suspend(False)
    past = lists(operator_cluster)
    faulty_operator.start()
    world.wait(lambda status: status.get("progress", {}).get("step") == 1)
    world.suspend(True)
    world.wait_phase("Suspended")
    (before,) = world.children("jobs")
    assert ("patch", "jobs") in [call.site for call in start_in(faulty_operator, proxy, past)]
    (after,) = world.children("jobs")
    assert (after["spec"]["suspend"], after["metadata"]["uid"]) == (True, before["metadata"]["uid"])
    assert not [pod for pod in world.children("pods") if pod["status"]["phase"] in ("Pending", "Running")]
    proxy.heal()
    world.wait_phase("Suspended")
    world.suspend(False)
    world.go()
    world.wait_phase("Succeeded")


def test_a_change_that_was_taken_back_deletes_no_job(faulty_operator, proxy, world, operator_cluster):
    world.create(suspend=True, fake={"holdAt": 1})
    faulty_operator.start()
    world.wait_phase("Suspended")
    faulty_operator.kill()
    body = spec(fake={"holdAt": 1})
    world.patch({"template": {"labels": {"team": "a"}}})
    past = lists(operator_cluster)
    world.patch({"template": {**body["template"], "labels": None}})
    world.suspend(False)
    faulty_operator.start()
    world.wait(lambda status: status.get("progress", {}).get("step") == 1)
    (pod,) = world.children("pods")
    assert ("delete", "jobs") in [call.site for call in start_in(faulty_operator, proxy, past)]
    assert [found["metadata"]["uid"] for found in world.children("pods")] == [pod["metadata"]["uid"]]
    proxy.heal()
    world.go()
    world.wait_phase("Succeeded")
    assert world.status()["restarts"]["pods"] == 0
