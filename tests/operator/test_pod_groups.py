"""Gangs by the scheduler, on a control plane that has PodGroups: the real scheduler places all pods of a job or none."""

import copy
import itertools

import pytest

from tests.cluster.binaries import OLDEST
from tests.cluster.cluster import REPOSITORY, Cluster
from tests.cluster.config import Config
from tests.operator.conftest import open_up, trainer_image
from tests.operator.process import ForkedOperator, install
from tests.operator.test_rights import PATH, RIGHTS, ROLE, denied
from tests.operator.world import GROUPS, World, spec, until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(OLDEST, reason="Kubernetes 1.34 has no PodGroups"),
]

GPU = "nvidia.com/gpu"
GROUP = "job-trainers"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def gated():
    """A cluster whose administrator has switched PodGroups on: up to Kubernetes 1.37 none has them otherwise."""
    GROUPS["podgroups"] = "/apis/scheduling.k8s.io/v1beta1"
    config = Config(
        nodes=2,
        resources={GPU: "8"},
        images={"*": trainer_image()},
        features=("GenericWorkload",),
        apis=("scheduling.k8s.io/v1beta1",),
    )
    with Cluster(config) as running:
        running.kubectl("apply", "-f", str(REPOSITORY / "operator/deploy/base/admission.yaml"))
        yield running


@pytest.fixture(scope="module")
def process(gated, tmp_path_factory):
    running = ForkedOperator(install(gated, REPOSITORY), tmp_path_factory.mktemp("gangs"))
    yield running
    running.kill()


@pytest.fixture
def operator(process):
    """The operator, running."""
    if not process.running:
        process.start()
    return process


@pytest.fixture
def world(gated, tmp_path):
    """A namespace of the test's own."""
    name = f"gang-{next(_numbers)}"
    gated.create("/api/v1/namespaces", {"metadata": {"name": name}})
    gated.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default", bool)
    volume = tmp_path / "volume"
    volume.mkdir()
    open_up(tmp_path)
    yield World(gated, name, volume)
    gated.request("DELETE", f"/api/v1/namespaces/{name}")


def gang(name="job", nodes=2, gpus=8, fake=None, priority="", **policy):
    body = spec(name, nodes=nodes, fake={"holdAt": 1, **(fake or {})}, **policy)
    body["distribution"]["resourcesPerNode"] = {"limits": {GPU: gpus}}
    if priority:
        body["template"]["priorityClassName"] = priority
    return body


def pods(world, name="job"):
    return [pod for pod in world.children("pods") if pod["metadata"]["labels"]["unfreeze.dev/job-name"] == name]


def placed(world, name="job"):
    return [pod["metadata"]["name"] for pod in pods(world, name) if "nodeName" in pod["spec"]]


def count(world, name=GROUP):
    group = world.cluster.get(world.path("podgroups", name))
    return group["spec"]["schedulingPolicy"]["gang"]["minCount"]


def running(world, name="job"):
    """Wait until all pods of a job run, and it is at its first step."""
    return world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step") == 1, name)


def waiting(world, name, pods):
    """Wait until so many pods of a job have been told by the scheduler that there is no room."""
    reasons = ["Unschedulable"] * pods
    return world.wait(lambda s: [found["reason"] for found in s.get("waiting", [])] == reasons, name)


def evict(world, pod):
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    assert world.cluster.request("POST", world.path("pods", f"{pod}/eviction"), eviction)[0] == 201


def test_a_gang_gets_all_of_its_nodes_or_none(operator, world):
    world.create("blocker", gang("blocker", 1))
    running(world, "blocker")
    early = {"index": 3, "exitCode": 0, "silent": True}
    world.create(body=gang(nodes=4, gpus=4, fake={"fail": early}, activeDeadlineSeconds=600))
    status = waiting(world, "job", 4)
    assert status["phase"] == "Pending"
    assert placed(world) == [], "two of them would fit"
    assert "activeDeadlineSeconds" not in world.children("jobs")[1]["spec"], "it would count the time of waiting"
    world.go("blocker")
    running(world)
    assert len(placed(world)) == 4
    job = world.path("jobs", "job-train")
    found = world.cluster.wait_for(job, lambda job: "activeDeadlineSeconds" in job["spec"], what="the deadline runs")
    assert found["spec"]["activeDeadlineSeconds"] >= 600

    world.cluster.wait_for(job, lambda job: job["status"].get("succeeded") == 1, what="one index is done")
    lost = next(name for name in placed(world) if name.startswith("job-train-1-"))
    evict(world, lost)
    until(lambda: len({*placed(world)} - {lost}) == 4, "another pod has its place")
    assert count(world) == 3, "of four one is done"

    world.suspend(True)
    world.wait_phase("Suspended")
    world.patch({"distribution": {"numNodes": 2}})
    world.suspend(False)
    running(world)
    assert count(world) == 2

    before = world.cluster.get(world.path("podgroups", GROUP))["metadata"]["uid"]
    world.suspend(True)
    world.wait_phase("Suspended")
    world.suspend(False)
    running(world)
    assert world.cluster.get(world.path("podgroups", GROUP))["metadata"]["uid"] != before, "with today's priority"
    world.go()
    assert world.wait_phase("Succeeded")["restarts"]["pods"] <= 1


@pytest.fixture
def urgent(gated):
    path = "/apis/scheduling.k8s.io/v1/priorityclasses"
    gated.create(path, {"metadata": {"name": "urgent"}, "value": 1000})
    yield "urgent"
    gated.request("DELETE", f"{path}/urgent")


def test_a_gang_is_preempted_as_a_whole_with_a_checkpoint_and_goes_on_later(operator, world, urgent):
    world.create("low", gang("low", backoffLimit=0))
    running(world, "low")
    world.create("high", gang("high", nodes=1, gpus=8, priority=urgent))
    running(world, "high")
    status = waiting(world, "low", 2)
    assert status["phase"] == "Pending"
    assert status["checkpoint"]["step"] == 1
    assert "failure" not in status
    assert placed(world, "low") == [], "one of its nodes is free"
    world.go("high")
    world.wait_phase("Succeeded", "high")
    assert running(world, "low")["stateSeconds"]["state"] in ("Starting", "Training", "Recovering")
    until(lambda: world.events().count("Running") == 3, "it is told that the first one runs again")
    world.go("low")
    assert "failure" not in world.wait_phase("Succeeded", "low")


def test_one_pod_is_no_gang(operator, world):
    world.create(nodes=1)
    world.wait_phase("Succeeded")
    assert world.list("podgroups") == []


SCENARIOS = {
    "create": lambda world: (world.create(nodes=2), world.wait_phase("Succeeded")),  # without a group
    "get": lambda world: (
        world.cluster.create(
            world.path("podgroups"), {"metadata": {"name": GROUP}, "spec": {"schedulingPolicy": {"basic": {}}}}
        ),
        world.create(nodes=2),
    ),
    "patch": lambda world: (
        world.create(nodes=2, fake={"holdAt": 1}),
        running(world),
        world.cluster.request(
            "PATCH", world.path("podgroups", GROUP), {"spec": {"schedulingPolicy": {"gang": {"minCount": 1}}}}
        ),
    ),
    "delete": lambda world: (
        world.create(nodes=2, suspend=True),
        world.wait_phase("Suspended"),
        world.patch({"distribution": {"numNodes": 3}}),
    ),
}


@pytest.fixture
def role(gated):
    """A function that takes a verb on PodGroups away; it is given back after the test."""

    def take(verb):
        rules = copy.deepcopy(ROLE["rules"])
        for rule in rules:
            if rule["resources"] == ["podgroups"]:
                rule["verbs"].remove(verb)
        assert gated.request("PATCH", PATH, {"rules": rules})[0] == 200

    yield take
    gated.request("PATCH", PATH, {"rules": ROLE["rules"]})


@pytest.mark.parametrize("verb", sorted(SCENARIOS))
def test_a_right_is_used_when_its_time_comes(operator, world, role, verb):
    role(verb)
    SCENARIOS[verb](world)
    denied(operator, "podgroups", verb)


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_a_right_is_used_at_the_start(process, world, role, verb):
    process.stop()
    role(verb)
    process.launch()
    denied(process, "podgroups", verb)
    process.stop()


def test_the_group_goes_with_its_job(operator, world):
    """At the end: the garbage collector looks for kinds every 30 s, and learns of a new one no sooner."""
    world.create(nodes=2)
    world.wait_phase("Succeeded")
    assert count(world) == 2
    world.delete("finetunejobs", "job")
    until(lambda: not world.children("podgroups"), "the group goes")


def test_every_right_on_groups_has_a_test():
    assert {verb for resource, verb in RIGHTS if resource == "podgroups"} == {*SCENARIOS, "list", "watch"}
