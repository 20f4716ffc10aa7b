"""The chart's life on a real control plane: install, upgrade, rollback, uninstall, with jobs that run meanwhile."""

import re
import shutil

import pytest
import yaml

from charts.generate import CHART
from tests.charts.release import ON_A_TEST_NODE, install, operator_pods, ready
from tests.charts.render import NAMESPACE
from tests.cluster.cluster import ClusterError
from tests.operator.world import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

CRD = ("customresourcedefinition.apiextensions.k8s.io", "", "finetunejobs.unfreeze.dev")
# What the control plane writes by itself, all the time.
RESTLESS = {
    "events",
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
    "nodes",
    "apiservices.apiregistration.k8s.io",
}

# What goes some time after its owner.
TERMINATING = {
    "pod": "/api/v1/pods",
    "service": "/api/v1/services",
    "replicaset.apps": "/apis/apps/v1/replicasets",
    "controllerrevision.apps": "/apis/apps/v1/controllerrevisions",
    "persistentvolume": "/api/v1/persistentvolumes",
}


@pytest.fixture
def cluster(chart_cluster):
    """Without a release, before and after."""
    yield chart_cluster
    chart_cluster.helm("uninstall", "unfreeze", "--namespace", NAMESPACE, "--ignore-not-found", "--wait")
    chart_cluster.kubectl("delete", "crd", CRD[2], "--ignore-not-found")


def objects(cluster):
    """Return kind, namespace and name of everything in the cluster."""

    def ask(path, what):
        # Of a kind whose CRD has just come, or gone.
        status, answer = until(lambda: (got := cluster.request("GET", path))[0] != 429 and got, path)
        assert status in (200, 404), answer
        return answer.get(what, ())

    groups = {group["name"]: group["preferredVersion"]["groupVersion"] for group in ask("/apis", "groups")}
    found = set()
    for group, path in {"": "/api/v1", **{name: f"/apis/{version}" for name, version in groups.items()}}.items():
        for resource in ask(path, "resources"):
            plural, kind = (".".join(filter(None, (resource[name], group))) for name in ("name", "kind"))
            if "list" in resource["verbs"] and plural not in RESTLESS:
                metas = [item["metadata"] for item in ask(f"{path}/{resource['name']}", "items")]
                found |= {(kind.lower(), meta.get("namespace", ""), meta["name"]) for meta in metas}
    return found


def left_after(cluster, before, namespace=""):
    """Return what was not there before, outside of a namespace, once what is being deleted has gone."""

    def leaving():
        names = {
            (kind, item["metadata"].get("namespace", ""), item["metadata"]["name"])
            for kind, path in TERMINATING.items()
            for item in cluster.get(path)["items"]
        }
        return {thing for thing in names - before if thing[1] != namespace}

    until(lambda: not leaving(), "what goes after its owner has gone")
    return {thing for thing in objects(cluster) - before if not namespace or thing[1] != namespace}


def leader(cluster, lease="unfreeze-operator"):
    """Return who holds the Lease; empty for nobody."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{lease}"
    status, answer = cluster.request("GET", path)
    return answer["spec"].get("holderIdentity") or "" if status == 200 else ""


def identities(world):
    """Return what a disturbed job would change: UIDs of the children and restarts."""
    children = [child["metadata"]["uid"] for plural in ("jobs", "pods", "services") for child in world.children(plural)]
    return children, world.status().get("restarts")


def test_running_jobs_outlive_upgrade_rollback_and_uninstall(cluster, world):
    before = objects(cluster)
    install(cluster)
    assert ready(cluster)
    world.create(nodes=2, fake={"holdAt": 3})
    world.wait(lambda status: status.get("progress", {}).get("step") == 3)
    undisturbed = identities(world)
    (first,) = operator_pods(cluster)

    install(cluster, trainer={"image": {"tag": "2"}}, resources={"requests": {"cpu": "10m"}})
    assert ready(cluster)
    assert first["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in operator_pods(cluster)}
    assert identities(world) == undisturbed

    cluster.helm("rollback", "unfreeze", "1", "--namespace", NAMESPACE, "--wait")
    assert ready(cluster)
    (last,) = operator_pods(cluster)
    assert last["spec"]["containers"][0]["env"] == first["spec"]["containers"][0]["env"]
    assert identities(world) == undisturbed
    assert world.status()["progress"]["step"] == 3

    cluster.helm("uninstall", "unfreeze", "--namespace", NAMESPACE, "--wait")
    assert identities(world) == undisturbed
    world.go()
    until(lambda: world.list("jobs")[0]["status"].get("succeeded") == 2, "the trainers end without an operator")
    install(cluster)
    world.wait_phase("Succeeded")

    cluster.helm("uninstall", "unfreeze", "--namespace", NAMESPACE, "--wait")
    world.delete("finetunejobs", "job")
    assert left_after(cluster, before, world.namespace) == {CRD}


def test_of_two_operators_one_continues_when_the_other_is_evicted(cluster, world):
    install(cluster, replicas=2, podDisruptionBudget={"enabled": True})
    assert len(operator_pods(cluster)) == 2
    first = until(lambda: leader(cluster), "an operator leads")
    (pod,) = (pod["metadata"]["name"] for pod in operator_pods(cluster) if first.startswith(pod["metadata"]["name"]))
    budget = f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets/unfreeze-operator"
    cluster.wait_for(budget, lambda it: it["status"].get("disruptionsAllowed") == 1, what="with one disruption allowed")
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    cluster.create(
        path, {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    )
    until(lambda: leader(cluster) not in ("", first), "another operator leads")
    world.create(fake={"steps": 1})
    world.wait_phase("Succeeded")
    install(cluster)
    assert ready(cluster), "one is enough again"


def test_two_releases_in_one_namespace_lead_at_once(cluster, world):
    install(cluster, replicas=2, namespaces=[world.namespace])
    install(cluster, "ml", replicas=2, namespaces=["default"], crds={"enabled": False})
    for lease in ("unfreeze-operator", "ml-unfreeze-operator"):
        assert until(lambda lease=lease: leader(cluster, lease), f"somebody holds {lease}").startswith(lease)
    cluster.helm("uninstall", "ml", "--namespace", NAMESPACE, "--wait")


def test_a_crd_that_is_not_kept_goes_with_the_release(cluster):
    """One that Helm 3 made, and Helm 4 has taken over."""
    before = objects(cluster)
    install(cluster, helm="helm3", crds={"keep": False})
    install(cluster, crds={"keep": False}, operator={**ON_A_TEST_NODE["operator"], "logLevel": "debug"})
    cluster.helm("uninstall", "unfreeze", "--namespace", NAMESPACE, "--wait")
    assert left_after(cluster, before) == set()


def test_the_crd_is_upgraded_with_the_chart(cluster, tmp_path):
    old = tmp_path / "unfreeze"
    shutil.copytree(CHART, old)
    crd = yaml.safe_load((old / "files/crd.yaml").read_text())
    status = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    status["properties"].pop("acceleratorSeconds")
    (old / "files/crd.yaml").write_text(yaml.safe_dump(crd, sort_keys=False))

    def known():
        return "acceleratorSeconds" in cluster.kubectl("get", "crd", CRD[2], "--output=json")

    cluster.helm("install", "unfreeze", str(old), "--namespace", NAMESPACE)
    assert not known()
    install(cluster)
    assert known()


def test_the_operator_of_some_namespaces_leaves_others_alone(cluster, world):
    other = f"{world.namespace}-other"
    cluster.create("/api/v1/namespaces", {"metadata": {"name": other}})
    install(cluster, namespaces=[world.namespace], rbac={"aggregate": False})
    job = world.create(fake={"steps": 1})
    cluster.create(
        f"/apis/unfreeze.dev/v1alpha1/namespaces/{other}/finetunejobs",
        {**job, "metadata": {"name": "job"}},
    )
    world.wait_phase("Succeeded")
    alone = cluster.get(f"/apis/unfreeze.dev/v1alpha1/namespaces/{other}/finetunejobs/job")
    assert alone["status"] == {"observedGeneration": -1}
    roles = cluster.kubectl("get", "clusterroles", "--selector=app.kubernetes.io/instance=unfreeze", "--output=name")
    assert roles == ""
    cluster.request("DELETE", f"/api/v1/namespaces/{other}")


def test_helm_test_trains_a_tiny_model_to_its_end(cluster):
    install(cluster, trainer={"image": {"repository": "real/trainer"}})
    before = objects(cluster)
    said = cluster.helm("test", "unfreeze", "--namespace", NAMESPACE, "--logs", "--timeout", "5m")
    assert re.search(r"Phase:\s+Succeeded", said)
    assert "Succeeded  100% (2/2)  accuracy" in said
    assert left_after(cluster, before) == set()


def test_helm_test_fails_with_the_reason(cluster):
    install(cluster, trainer={"image": {"repository": "absent/trainer"}}, test={"timeoutSeconds": 2})
    with pytest.raises(ClusterError, match="unfreeze-test"):
        cluster.helm("test", "unfreeze", "--namespace", NAMESPACE, "--timeout", "10s")  # waited out, though it failed
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/unfreeze-test"
    cluster.wait_for(path, lambda pod: pod["status"]["phase"] == "Failed", what="failed")
    log = cluster.kubectl("logs", "unfreeze-test", "--namespace", NAMESPACE)
    assert "ImagePull" in log
    assert "has not ended after 2 s" in log
    cluster.kubectl("delete", "ftj,pod,cm,pvc", "--all", "--namespace", NAMESPACE)


def test_an_install_that_cannot_start_says_why(cluster):
    with pytest.raises(ClusterError, match=r"image|progress deadline|not ready|context deadline"):
        cluster.helm(
            "install", "unfreeze", str(CHART), "--namespace", NAMESPACE, "--wait", "--timeout", "3s",
            values={"image": {"repository": "absent/operator"}, "nodeSelector": {"no": "such-node"}},
        )  # fmt: skip
