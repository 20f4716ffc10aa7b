"""A node loses its power: the gang is complete again on another one, and a suspend does not wait for the dead."""

import pytest

from tests.operator.world import condition, until

pytestmark = pytest.mark.cluster


@pytest.fixture
def doomed(operator_cluster):
    """A function that cuts the power of a node; it is back afterwards."""
    killed = []

    def kill(world, name):
        # One that was not ready yet shows no sign of a dead node: the cluster takes readiness from pods that have it.
        for pod in world.children("pods"):
            world.cluster.wait_for(world.path("pods", pod["metadata"]["name"]), ready, what="ready")
        node = next(node for node in operator_cluster.nodes if node.name == name)
        killed.append(node)
        node.kill()
        until(lambda: not node.is_ready(), "the cluster notices")

    yield kill
    for node in killed:
        node.start()
        operator_cluster.wait_for(f"/api/v1/nodes/{node.name}", lambda n: not n["spec"].get("taints"), what="usable")


def ready(pod):
    return any(held["type"] == "Ready" and held["status"] == "True" for held in pod["status"]["conditions"])


def hurry(world, names):
    """Shorten the two minutes that the trainer has to end, once the cluster has deleted the pods."""
    for name in names:
        path = world.path("pods", name)
        world.cluster.wait_for(path, lambda pod: not pod or "deletionTimestamp" in pod["metadata"], what="deleted")
        world.cluster.request("DELETE", path, {"gracePeriodSeconds": 1})


def test_the_gang_is_complete_again_elsewhere(operator, world, doomed):
    world.create(nodes=2, fake={"holdAt": 1}, backoffLimit=0)
    world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step") == 1)
    dead = world.children("pods")[0]["spec"]["nodeName"]
    lost = [pod["metadata"]["name"] for pod in world.children("pods") if pod["spec"]["nodeName"] == dead]
    doomed(world, dead)
    lately = world.wait(lambda s: condition(s, "Running").get("reason") == "NodeUnreachable")
    assert dead in condition(lately, "Running")["message"]
    assert lately["stateSeconds"]["state"] == "Recovering"
    hurry(world, lost)
    until(lambda: complete(world, dead), "two pods on other nodes")
    status = world.wait(lambda s: s.get("nodes", {}).get("ready") == 2)
    assert status["failure"]["reason"] == "NodeLost"
    assert status["failure"]["node"] == dead
    world.go()
    assert "failure" not in world.wait_phase("Succeeded")


def complete(world, dead):
    pods = [pod for pod in world.children("pods") if pod["status"]["phase"] == "Running"]
    return len(pods) == 2 and all(pod["spec"]["nodeName"] != dead for pod in pods)


def test_a_suspend_does_not_wait_for_a_dead_node(operator, world, doomed):
    world.create(fake={"holdAt": 1}, backoffLimit=0)
    world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step") == 1)
    (pod,) = world.children("pods")
    doomed(world, pod["spec"]["nodeName"])
    world.suspend(True)
    hurry(world, [pod["metadata"]["name"]])
    world.wait_phase("Suspended")
    world.wait_children("pods", 0)
    world.suspend(False)
    world.wait_phase("Running")
    world.go()
    world.wait_phase("Succeeded")
