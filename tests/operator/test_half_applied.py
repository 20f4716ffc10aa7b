"""A change that is not allowed is refused as a whole, however it comes: by kubectl apply, on either side, or by a patch."""

import copy
import json

import pytest

from tests.operator.world import spec

pytestmark = pytest.mark.cluster

MUTABLE = {"runPolicy": {"backoffLimit": 0, "ttlSecondsAfterFinished": 3600}}
IMMUTABLE = {
    "training": {"epochs": 7},
    "strategy": {"type": "FeatureExtraction"},
    "output": {"destination": "pvc://shared/elsewhere"},
    "distribution": {"numNodes": 2, "engine": "DeepSpeed"},
}
WHILE_RUNNING = {"distribution": {"numNodes": 2}, "template": {"labels": {"team": "a"}}}


def apply(world, manifest, *how):
    """Return what kubectl says against a manifest; nothing when it is applied."""
    result = world.cluster.kubectl("apply", "-n", world.namespace, *how, "-f", "-", stdin=manifest, check=False)
    return "" if "finetunejob" in result else "refused"


def manifest_of(body):
    meta = {"name": "job"}
    return {"apiVersion": "unfreeze.dev/v1alpha1", "kind": "FineTuneJob", "metadata": meta, "spec": body}


@pytest.mark.parametrize("how", [(), ("--server-side",)], ids=["client-side", "server-side"])
def test_by_apply(operator, world, how):
    body = spec(fake={"holdAt": 1})
    assert apply(world, manifest_of(body), *how) == ""
    world.wait(lambda status: status.get("phase") == "Running" and status.get("progress", {}).get("step") == 1)
    for change in (*({name: value} for name, value in IMMUTABLE.items()), *({k: v} for k, v in WHILE_RUNNING.items())):
        before = world.get()
        changed = {**copy.deepcopy(body), **change, **MUTABLE}
        assert apply(world, manifest_of(changed), *how) == "refused", change
        after = world.get()
        assert after["spec"] == before["spec"], change
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
    allowed = {**copy.deepcopy(body), **MUTABLE}
    assert apply(world, manifest_of(allowed), *how) == ""
    assert world.get()["spec"]["runPolicy"]["ttlSecondsAfterFinished"] == 3600


@pytest.mark.parametrize("how", [(), ("--server-side",)], ids=["client-side", "server-side"])
def test_what_may_change_while_suspended_comes_by_apply_too(operator, world, how):
    body = spec(fake={"holdAt": 2})
    apply(world, manifest_of(body), *how)
    world.wait(lambda status: status.get("progress", {}).get("step") == 2)
    suspended = copy.deepcopy(body)
    suspended["runPolicy"]["suspend"] = True
    assert apply(world, manifest_of(suspended), *how) == ""
    world.wait_phase("Suspended")
    both = {**copy.deepcopy(suspended), "distribution": {"numNodes": 2}, "training": {"epochs": 7}}
    assert apply(world, manifest_of(both), *how) == "refused"
    assert world.get()["spec"]["distribution"]["numNodes"] == 1
    wider = {**copy.deepcopy(suspended), "distribution": {"numNodes": 2}}
    assert apply(world, manifest_of(wider), *how) == ""
    resumed = copy.deepcopy(wider)
    resumed["runPolicy"]["suspend"] = False
    assert apply(world, manifest_of(resumed), *how) == ""
    world.wait(lambda status: status.get("phase") == "Running" and status["nodes"]["desired"] == 2)
    world.wait_children("pods", 2)
    world.go()
    world.cluster.kubectl("wait", "-n", world.namespace, "ftj/job", "--for=condition=Complete", "--timeout=60s")
    assert world.status()["phase"] == "Succeeded"


def test_by_a_patch(operator, world):
    world.create(fake={"holdAt": 1})
    world.wait_phase("Running")
    before = world.get()["spec"]
    change = {"spec": {**MUTABLE, "training": {"epochs": 7}}}
    code, answer = world.cluster.request("PATCH", world.path("finetunejobs", "job"), change)
    assert code == 422
    assert "training cannot be changed" in json.dumps(answer)
    assert world.get()["spec"] == before
