"""A node is to be emptied, on a real control plane: the job writes a checkpoint, moves, and goes on where it was."""

import pytest

from tests.operator.world import until

pytestmark = pytest.mark.cluster


@pytest.fixture
def leaving(operator_cluster):
    """A function that runs kubectl on a node, which is as before afterwards."""
    nodes = []

    def kubectl(node, *command):
        nodes.append(node)
        operator_cluster.kubectl(*command)

    yield kubectl
    for node in {*nodes}:
        operator_cluster.kubectl("uncordon", node)
        operator_cluster.request("PATCH", f"/api/v1/nodes/{node}", {"spec": {"taints": None}})


def drain(leaving, node):
    leaving(
        node, "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--pod-selector=unfreeze.dev/job-name"
    )


def taint(leaving, node):
    leaving(node, "taint", "nodes", node, "maintenance=soon:NoExecute")


def running(world):
    pods = [pod for pod in world.children("pods") if pod["status"]["phase"] == "Running"]
    return {pod["metadata"]["uid"]: pod["spec"]["nodeName"] for pod in pods}


@pytest.mark.parametrize("empty", [drain, taint])
def test_a_node_that_is_emptied_costs_no_step(operator, world, leaving, empty):
    world.create(nodes=2, fake={"holdAt": 3}, backoffLimit=0)
    world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step") == 3)
    before = running(world)
    leader = next(pod for pod in world.children("pods") if pod["metadata"]["name"].startswith("job-train-0-"))
    node = leader["spec"]["nodeName"]
    leaving(node, "cordon", node)
    assert running(world) == before, "no new pods come there, and those that are there stay"
    empty(leaving, node)
    until(lambda: len(there := running(world)) == 2 and node not in there.values(), "both run elsewhere")
    # It was written when the pod was asked to go.
    status = world.wait(lambda s: s.get("checkpoint", {}).get("step") == 3 and s["nodes"]["ready"] == 2)
    assert "failure" not in status
    assert status["progress"]["step"] == 3
    world.go()
    end = world.wait_phase("Succeeded")
    assert "failure" not in end
    assert end["restarts"]["inPlace"] == 0
