"""Gangs without Kueue: all or nothing in the end, what they wait for, and what the template says to other schedulers."""

from datetime import UTC, datetime

import pytest

from tests.operator.world import condition, ended, spec, unschedulable, until
from unfreeze_operator.objects.views import parse_time

pytestmark = pytest.mark.cluster

GPU = "nvidia.com/gpu"
RESTED = 2
"""Seconds; the scheduler's pause between two tries is one."""


def whole_nodes(name, nodes=2, **template):
    """Return a job each of whose pods takes all accelerators of a node."""
    body = spec(name, nodes=nodes, fake={"holdAt": 1})
    body["distribution"]["resourcesPerNode"] = {"limits": {GPU: 8}}
    body["template"] |= template
    return body


@pytest.fixture
def urgent(operator_cluster):
    """A priority class whose pods come first, and take nothing away from others."""
    path = "/apis/scheduling.k8s.io/v1/priorityclasses"
    operator_cluster.create(path, {"metadata": {"name": "first"}, "value": 9, "preemptionPolicy": "Never"})
    yield "first"
    operator_cluster.request("DELETE", f"{path}/first")


def placed(world, name):
    pods = [pod for pod in world.children("pods") if pod["metadata"]["labels"]["unfreeze.dev/job-name"] == name]
    return [pod["spec"]["nodeName"] for pod in pods if "nodeName" in pod["spec"]]


def since_refused(world, name):
    """Return for how many seconds each pod of a job has been without a place."""
    pods = [pod for pod in world.children("pods") if pod["metadata"]["labels"]["unfreeze.dev/job-name"] == name]
    refused = [
        parse_time(found["lastTransitionTime"])
        for pod in pods
        for found in pod["status"].get("conditions", ())
        if (found["type"], found["status"]) == ("PodScheduled", "False")
    ]
    return (datetime.now(UTC) - max(refused)).total_seconds() if len(refused) == 2 else 0


def complete(world):
    statuses = {name: world.status(name) for name in ("one", "two")}
    return next(
        (name for name, s in statuses.items() if s.get("phase") == "Running" and s["nodes"]["ready"] == 2), None
    )


def test_two_gangs_that_each_hold_half_of_the_cluster_both_end(lone_operator, world, urgent):
    lone_operator.options = ("--gang-patience=6",)
    lone_operator.start()
    world.create("blocker", whole_nodes("blocker", 1, nodeSelector={"kubernetes.io/hostname": "node-1"}))
    world.wait_phase("Running", "blocker")
    world.create("one", whole_nodes("one"))
    until(lambda: placed(world, "one") == ["node-0"], "the first holds the other half")
    world.create("two", whole_nodes("two", priorityClassName=urgent))
    world.wait(lambda s: len(s.get("waiting", [])) == 2, "two")
    # The scheduler lets a pod rest that has just found no place: what is urgent would come last.
    # On a slow machine the first may have lost its patience by then.
    until(lambda: since_refused(world, "two") > RESTED or "NodesGivenBack" in world.events(), "both may be tried again")
    world.go("blocker")
    until(lambda: "NodesGivenBack" in world.events(), "one of them gives way")
    winner = until(lambda: complete(world), "the other one is complete", 120)
    world.go(winner)
    assert world.wait_phase("Succeeded", winner)["restarts"]["pods"] == 0
    loser = {"one": "two", "two": "one"}[winner]
    world.wait(lambda s: s.get("phase") == "Running" and s["nodes"]["ready"] == 2, loser, seconds=120)
    world.go(loser)
    end = world.wait_phase("Succeeded", loser)
    assert "failure" not in end
    assert end["restarts"]["pods"] == 0


def test_what_other_schedulers_read_reaches_the_pods(operator, world):
    template = {"labels": {"team": "a"}, "annotations": {"scheduling/group": "g"}, "schedulerName": "another"}
    body = spec(nodes=2)
    body["template"] |= template
    world.create(body=body)
    for pod in world.wait_children("pods", 2):
        assert pod["metadata"]["labels"]["team"] == "a"
        assert pod["metadata"]["annotations"]["scheduling/group"] == "g"
        assert pod["spec"]["schedulerName"] == "another"
        binding = {"metadata": {"name": pod["metadata"]["name"]}, "target": {"kind": "Node", "name": "node-0"}}
        world.cluster.create(world.path("pods", f"{pod['metadata']['name']}/binding"), binding)
    end = world.wait_phase("Succeeded")
    assert condition(end, "Complete")["status"] == "True"


def unpullable(body):
    body["template"]["image"] = "registry.example/none:1"


def secretless(body):
    reference = {"secretKeyRef": {"name": "hub-token", "key": "token"}}
    body["template"]["env"] += [{"name": "TOKEN", "valueFrom": reference}]


def claimless(body):
    body["data"]["train"]["source"] = "pvc://nowhere/train.csv"


def unbound(body):
    body["data"]["train"]["source"] = "pvc://unbound/train.csv"


CAUSES = [
    (unschedulable, "Unschedulable", "affinity/selector"),
    (unpullable, "ImagePull", "registry.example/none:1"),
    (secretless, "ConfigError", 'secret "hub-token" not found'),
    (claimless, "ClaimNotFound", 'persistentvolumeclaim "nowhere" not found'),
    (unbound, "ClaimPending", "PersistentVolumeClaims"),
]


@pytest.mark.parametrize(("spoil", "reason", "words"), CAUSES, ids=[reason for _, reason, _ in CAUSES])
def test_a_gang_that_does_not_become_complete_says_why(operator, world, spoil, reason, words):
    claim = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "none",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    world.cluster.create(world.path("persistentvolumeclaims"), {"metadata": {"name": "unbound"}, "spec": claim})
    body = spec(nodes=2)
    spoil(body)
    world.create(body=body)
    status = world.wait(lambda s: [found["reason"] for found in s.get("waiting", [])] == [reason] * 2, what=reason)
    assert status["phase"] == "Pending"
    assert all(words in found["message"] for found in status["waiting"])
    running = condition(status, "Running")
    assert (running["status"], running["reason"]) == ("False", reason)
    assert running["message"].startswith("job-train-0-")
    assert running["message"].endswith("(and 1 more)")


def test_pods_that_a_quota_refuses_are_missed(operator, world):
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "0"}}}
    world.cluster.create(world.path("resourcequotas"), quota)
    world.cluster.wait_for(
        world.path("resourcequotas", "small"), lambda found: "hard" in found.get("status", {}), what="in effect"
    )
    world.create()
    status = world.wait(lambda s: condition(s, "Running").get("reason") == "PodsMissing")
    assert "kubectl describe job job" in condition(status, "Running")["message"]


def test_a_gang_that_does_not_become_complete_in_time_fails(operator, world):
    body = spec(nodes=2, startupTimeoutSeconds=3)
    body["distribution"]["resourcesPerNode"] = {"limits": {"nvidia.com/gpu": 16}}
    world.create(body=body)
    end = world.wait_phase("Failed")
    assert end["failure"]["reason"] == "StartupTimeout"
    assert "Insufficient nvidia.com/gpu" in end["failure"]["message"]
    assert condition(end, "Failed")["status"] == "True"
    world.cluster.wait_for(world.path("jobs", "job-train"), ended, what="the Job has ended")
    world.wait_children("pods", 0)
    assert world.status() == end
