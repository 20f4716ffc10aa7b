"""Gangs without Kueue: all or nothing in the end, and what the template says to other schedulers."""

import pytest

from tests.operator.world import condition, spec, until

pytestmark = pytest.mark.cluster

GPU = "nvidia.com/gpu"


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


def whole(world):
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
    world.go("blocker")
    until(lambda: "NodesGivenBack" in world.events(), "one of them gives way")
    winner = until(lambda: whole(world), "the other one is whole", 120)
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
