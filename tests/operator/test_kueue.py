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


TOPOLOGY = "kueue.x-k8s.io/podset-required-topology"
HOST = "kubernetes.io/hostname"
ELASTIC = "kueue.x-k8s.io/elastic-job"


@pytest.fixture
def topology(kueue, operator_cluster, world):
    """A function that creates a job of two pods, with so many GPUs each, that must lie on one node of eight."""
    name = world.namespace
    of_nodes = {"nodeLabels": {"kubernetes.io/os": "linux"}, "topologyName": name}
    flavor = {"name": name, "resources": [{"name": GPU, "nominalQuota": 16}]}
    cluster_queue = {
        "namespaceSelector": {},
        "resourceGroups": [{"coveredResources": [GPU], "flavors": [flavor]}],
    }
    manifests = [
        of_kueue("Topology", name, {"levels": [{"nodeLabel": HOST}]}),
        of_kueue("ResourceFlavor", name, of_nodes),
        of_kueue("ClusterQueue", name, cluster_queue),
        of_kueue("LocalQueue", "team-a", {"clusterQueue": name}, namespace=name),
    ]
    operator_cluster.kubectl("apply", "--filename=-", stdin=manifests)

    def create(job, gpus):
        body = spec(job, nodes=2, fake={"holdAt": 3})
        body["distribution"]["resourcesPerNode"] = {"limits": {GPU: gpus}}
        body["template"] |= {"annotations": {TOPOLOGY: HOST, "team/cost-centre": "7"}, "labels": {"team/name": "a"}}
        return world.create(job, body=body, labels={"kueue.x-k8s.io/queue-name": "team-a"})

    yield create
    operator_cluster.kubectl("delete", "--wait=false", "--filename=-", stdin=manifests)


def test_a_gang_lands_where_its_topology_says(operator, world, topology):
    """Kueue writes gates, labels and annotations into the Job's template, and selectors into its pods: all stay."""
    topology("close", 4)
    held(world, "close")
    pods = world.children("pods")
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 1
    for pod in pods:
        annotations, labels = pod["metadata"]["annotations"], pod["metadata"]["labels"]
        assert (annotations[TOPOLOGY], annotations["team/cost-centre"], labels["team/name"]) == (HOST, "7", "a")
        assert pod["spec"]["nodeSelector"][HOST] == pod["spec"]["nodeName"]
        assert "kueue.x-k8s.io/podset" in labels
        assert "schedulingGates" not in pod["spec"]
    [job] = world.children("jobs")
    assert "kueue.x-k8s.io/podset" in job["spec"]["template"]["metadata"]["labels"]
    world.go("close")
    assert world.wait_phase("Succeeded", "close")["restarts"] == {"inPlace": 0, "pods": 0}


def test_a_topology_that_no_node_has_room_for_is_said(operator, world, topology):
    topology("wide", 5)
    queued(world, "wide", "topology")


@pytest.fixture
def elastic(operator_cluster, world):
    """Each Job of the namespace is elastic for Kueue: an admission policy says so, since no field does."""
    key = ELASTIC.replace("/", "~1")
    patch = f'[JSONPatch{{op: "add", path: "/metadata/annotations/{key}", value: "true"}}]'
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}}
    policy = {
        "matchConstraints": {"namespaceSelector": here, "resourceRules": [rule]},
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
    }
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": world.namespace}}
    manifests = [
        {**head, "kind": "MutatingAdmissionPolicy", "spec": policy},
        {**head, "kind": "MutatingAdmissionPolicyBinding", "spec": {"policyName": world.namespace}},
    ]
    operator_cluster.kubectl("apply", "--filename=-", stdin=manifests)
    container = {"name": "a", "image": "a", "command": ["true"]}
    probe = {
        "metadata": {"name": "probe", "annotations": {"a": "b"}},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }

    def annotated():
        code, answer = operator_cluster.request("POST", f"{world.path('jobs')}?dryRun=All", probe)
        assert code == 201, answer
        return ELASTIC in answer["metadata"]["annotations"]

    until(annotated, "the policy counts")
    yield
    operator_cluster.kubectl("delete", "--filename=-", stdin=manifests)


def test_slices_of_an_elastic_job_are_not_in_the_way(operator, world, queue, elastic):
    queue("first")
    held(world, "first")
    queue("second")
    queued(world, "second", "insufficient unused quota for nvidia.com/gpu")
    jobs = world.children("jobs")
    assert [job["metadata"]["annotations"][ELASTIC] for job in jobs] == ["true", "true"]
    assert all("schedulingGates" not in pod["spec"] for pod in world.children("pods"))
    world.go("first")
    world.wait_phase("Succeeded", "first")
    world.go("second")
    assert world.wait_phase("Succeeded", "second")["restarts"] == {"inPlace": 0, "pods": 0}


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
