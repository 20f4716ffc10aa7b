"""A node is to be emptied, on a real control plane: the job writes a checkpoint, moves, and goes on where it was."""

import pytest

from tests.cluster.binaries import OLDEST
from tests.operator.world import spec, until

pytestmark = pytest.mark.cluster

GPU, DRIVER, DEVICE = "amd.com/gpu", "gpu.amd.com", "gpu-0"
DRA = "/apis/resource.k8s.io/v1"
BROKEN = {"key": "amd.com/unhealthy", "effect": "NoExecute"}


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


@pytest.fixture
def devices(operator_cluster):
    """A device of DRA on each node, which pods ask for as an extended resource; yields what is to be deleted afterwards."""
    made = []

    def make(plural, name, spec_):
        operator_cluster.create(f"{DRA}/{plural}", {"metadata": {"name": name}, "spec": spec_})
        made.append(f"{DRA}/{plural}/{name}")

    mine = [{"cel": {"expression": f"device.driver == '{DRIVER}'"}}]
    make("deviceclasses", DRIVER, {"selectors": mine, "extendedResourceName": GPU})
    for node in operator_cluster.nodes:
        make("resourceslices", node.name, slice_of(node.name))
    yield make
    for path in reversed(made):
        operator_cluster.request("DELETE", path)


def slice_of(node, generation=1, **device):
    pool = {"name": node, "generation": generation, "resourceSliceCount": 1}
    return {"driver": DRIVER, "nodeName": node, "pool": pool, "devices": [{"name": DEVICE, **device}]}


def by_an_administrator(cluster, make, node):
    selector = {"driver": DRIVER, "pool": node, "device": DEVICE}
    make("devicetaintrules", "broken", {"deviceSelector": selector, "taint": BROKEN})


def by_the_driver(cluster, make, node):
    change = {"spec": slice_of(node, generation=2, taints=[BROKEN])}
    code, answer = cluster.request("PATCH", f"{DRA}/resourceslices/{node}", change)
    assert code == 200, answer


@pytest.mark.skipif(OLDEST, reason="Kubernetes 1.34 taints no devices unless asked to")
@pytest.mark.parametrize("taint_device", [by_an_administrator, by_the_driver])
def test_a_device_that_is_tainted_costs_no_step(operator, world, operator_cluster, devices, taint_device):
    body = spec(fake={"holdAt": 3}, backoffLimit=0)
    body["distribution"]["resourcesPerNode"] = {"limits": {GPU: "1"}}
    world.create(body=body)
    world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step") == 3)
    ((before, node),) = running(world).items()
    mark = operator_cluster.mark()
    taint_device(operator_cluster, devices, node)
    until(lambda: len(there := running(world)) == 1 and before not in there, "another pod runs in its place")
    assert node not in running(world).values()
    authors = [w.user for w in operator_cluster.writes(mark) if (w.verb, w.resource) == ("delete", "pods")]
    assert authors[0] == "system:serviceaccount:kube-system:device-taint-eviction-controller"
    status = world.wait(lambda s: s.get("checkpoint", {}).get("step") == 3 and s["nodes"]["ready"] == 1)
    assert status["progress"]["step"] == 3
    world.go()
    end = world.wait_phase("Succeeded")
    assert "failure" not in end
    assert end["restarts"]["inPlace"] == 0
