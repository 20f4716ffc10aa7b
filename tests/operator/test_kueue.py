"""Jobs in a queue of Kueue, the real one with its webhooks: queued, admitted, preempted, requeued, suspended."""

import copy

import pytest
import yaml

from tests.cluster.cluster import REPOSITORY
from tests.cluster.kueue import Kueue
from tests.operator.world import condition, spec, until

# The first run on a machine builds Kueue.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

GPU = "nvidia.com/gpu"
ROLE_PATH = "/apis/rbac.authorization.k8s.io/v1/clusterroles/unfreeze-operator"


def of_kueue(kind, name, spec=None, **metadata):
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": kind,
        "metadata": {"name": name, **metadata},
        "spec": spec or {},
    }


def priority_class(name, value):
    return {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value}


@pytest.fixture(scope="module")
def kueue(operator_cluster, shared_operator):
    shared_operator.stop()  # it may have seen a cluster without Kueue, and looks again only after a while
    manifests = [of_kueue("ResourceFlavor", "default"), priority_class("low", 10), priority_class("high", 100)]
    with Kueue(operator_cluster):
        operator_cluster.kubectl("apply", "--filename=-", stdin=manifests)
        yield
        operator_cluster.kubectl("delete", "--wait=false", "--filename=-", stdin=manifests)


@pytest.fixture
def queue(kueue, operator_cluster, world):
    """A function that creates a job of two pods with two GPUs each; the queue has quota for one such job."""
    flavor = {"name": "default", "resources": [{"name": GPU, "nominalQuota": 4}]}
    cluster_queue = {
        "namespaceSelector": {},
        "resourceGroups": [{"coveredResources": [GPU], "flavors": [flavor]}],
        "preemption": {"withinClusterQueue": "LowerPriority"},
    }
    manifests = [
        of_kueue("ClusterQueue", world.namespace, cluster_queue),
        of_kueue("LocalQueue", "team-a", {"clusterQueue": world.namespace}, namespace=world.namespace),
    ]
    operator_cluster.kubectl("apply", "--filename=-", stdin=manifests)

    def create(name, priority="low", queue="team-a", **policy):
        body = spec(name, nodes=2, fake={"holdAt": 3}, **policy)
        body["distribution"]["resourcesPerNode"] = {"limits": {GPU: 2}}
        body["template"]["priorityClassName"] = priority
        return world.create(name, body=body, labels={"kueue.x-k8s.io/queue-name": queue})

    yield create
    operator_cluster.kubectl("delete", "clusterqueue", world.namespace, "--wait=false")


def held(world, name):
    return world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step") == 3, name)


def queued(world, name, words):
    """Wait until a job is queued for this reason, and holds nothing."""
    status = world.wait(lambda s: s.get("phase") == "Queued" and words in condition(s, "Running")["message"], name)
    assert condition(status, "Running")["reason"] == "Queued"
    until(
        lambda: not [pod for pod in world.children("pods") if pod["metadata"]["name"].startswith(f"{name}-")], "no pod"
    )
    return status


def test_a_job_waits_in_the_queue_and_says_what_for(operator, world, queue):
    queue("first")
    held(world, "first")
    queue("second")
    queued(world, "second", "insufficient unused quota for nvidia.com/gpu")
    world.go("first")
    world.wait_phase("Succeeded", "first")
    world.go("second")
    end = world.wait_phase("Succeeded", "second")
    assert end["restarts"]["pods"] == 0
    about = [(e["regarding"]["kind"], e["regarding"]["name"], e["reason"]) for e in world.list("events")]
    told = sorted(reason for kind, name, reason in about if (kind, name) == ("FineTuneJob", "second"))
    assert told == ["Queued", "Running", "Succeeded"]


def test_a_job_that_is_preempted_goes_back_into_the_queue_and_resumes_later(operator, world, queue):
    queue("low", backoffLimit=0)
    held(world, "low")
    queue("high", priority="high")
    status = queued(world, "low", "Preempted")
    assert status["checkpoint"]["step"] == 3
    assert "failure" not in status
    held(world, "high")
    world.go("high")
    world.wait_phase("Succeeded", "high")
    resumed = world.wait(lambda s: s.get("phase") == "Running", "low")
    assert resumed["progress"]["step"] == 3
    world.go("low")
    end = world.wait_phase("Succeeded", "low")
    assert end["restarts"] == {"inPlace": 0, "pods": 0}


def test_a_suspend_gives_the_quota_back(operator, world, queue):
    queue("first")
    held(world, "first")
    queue("second")
    queued(world, "second", "insufficient unused quota")
    world.suspend(True, "first")
    suspended = world.wait_phase("Suspended", "first")
    assert not [pod for pod in world.children("pods") if pod["metadata"]["name"].startswith("first-")]
    assert suspended["checkpoint"]["step"] == 3
    held(world, "second")
    world.suspend(False, "first")
    queued(world, "first", "insufficient unused quota")
    world.go("second")
    world.wait_phase("Succeeded", "second")
    assert held(world, "first")["progress"]["step"] == 3
    world.go("first")
    assert world.wait_phase("Succeeded", "first")["restarts"] == {"inPlace": 0, "pods": 0}


def test_a_gang_that_the_queue_has_never_room_for_gets_no_pod(operator, world, queue):
    queue("lost", queue="nowhere")
    queued(world, "lost", "LocalQueue nowhere doesn't exist")
    world.patch({"runPolicy": {"suspend": True}}, "lost")
    world.wait_phase("Suspended", "lost")


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_each_right_to_workloads_is_needed(lone_operator, kueue, operator_cluster, verb):
    manifests = yaml.safe_load_all((REPOSITORY / "operator/deploy/base/rbac.yaml").read_text())
    rules = next(manifest for manifest in manifests if manifest["kind"] == "ClusterRole")["rules"]
    less = copy.deepcopy(rules)
    for rule in less:
        if rule["resources"] == ["workloads"]:
            rule["verbs"].remove(verb)
    try:
        operator_cluster.request("PATCH", ROLE_PATH, {"rules": less})
        lone_operator.start()
        sentence = f'cannot {verb} resource "workloads"'
        until(lambda: sentence in lone_operator.log.read_text().replace('\\"', '"'), sentence)
    finally:
        operator_cluster.request("PATCH", ROLE_PATH, {"rules": rules})
