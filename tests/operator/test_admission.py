"""The operator's account writes only what it manages, whatever its role says: by the real API server, verb by verb."""

import copy

import pytest
import yaml

from tests.cluster.cluster import REPOSITORY
from tests.operator.fakes import IMAGE, FakeCluster, job
from tests.operator.world import spec, until
from unfreeze_operator.manifests.children import config_map, indexed_job, network_policy, service
from unfreeze_operator.objects.carried import Carried
from unfreeze_operator.objects.resources import MANAGED_BY_LABEL, GangNames
from unfreeze_operator.settings.network import ISOLATED

NAMES = GangNames.of("job")

pytestmark = pytest.mark.cluster

HOME, ACCOUNT = "admission-home", "operator"
FILE = REPOSITORY / "operator/deploy/base/admission.yaml"


def policy(name, namespace, account):
    """Return policy and binding for another account."""
    text = FILE.read_text().replace("unfreeze-system:unfreeze-operator", f"{namespace}:{account}")
    return list(
        yaml.safe_load_all(
            text.replace("'unfreeze-system'", f"'{namespace}'")
            .replace("name: unfreeze-operator", f"name: {name}")
            .replace("policyName: unfreeze-operator", f"policyName: {name}")
        )
    )


def applied(cluster, manifests):
    for manifest in manifests:
        cluster.kubectl("apply", "-f", "-", stdin=manifest)


@pytest.fixture(scope="module")
def token(operator_cluster, operator_kubeconfig):
    """The token of an account that may do everything, by RBAC."""
    operator_cluster.kubectl("create", "namespace", HOME)
    operator_cluster.kubectl("create", "serviceaccount", ACCOUNT, "-n", HOME)
    operator_cluster.kubectl(
        "create", "clusterrolebinding", HOME, "--clusterrole=cluster-admin", f"--serviceaccount={HOME}:{ACCOUNT}"
    )
    applied(operator_cluster, policy(HOME, HOME, ACCOUNT))
    token = operator_cluster.service_account_token(HOME, ACCOUNT)
    probe = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "probe"}}
    path = f"/api/v1/namespaces/{HOME}/secrets?dryRun=All"
    until(lambda: operator_cluster.request("POST", path, probe, token=token)[0] == 422, "the policy holds", 60)
    yield token
    for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy", "clusterrolebinding", "namespace"):
        operator_cluster.kubectl("delete", kind, HOME, "--wait=false")


def children(namespace="", name="job"):
    view = job(name=name)
    made = FakeCluster().context(view).spec
    out = {
        "configmaps": config_map(view, made, NAMES),
        "services": service(view, NAMES.service),
        "networkpolicies": network_policy(view, ISOLATED),
        "jobs": indexed_job(view, made, IMAGE, Carried(), NAMES),
    }
    for manifest in out.values():
        manifest["metadata"].pop("namespace")
        if namespace:
            manifest["metadata"]["namespace"] = namespace
    return out


def changed(manifest, path, value):
    """Return a manifest with another value, or without one, at a path."""
    out = copy.deepcopy(manifest)
    *above, last = path.split(".")
    node = out
    for part in above:
        node = node[int(part) if part.isdecimal() else part]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return out


POD = "spec.template.spec."
TRAINER = f"{POD}containers.0."
OWNER = "metadata.ownerReferences.0."
SIDECAR = {"name": "c", "image": "i", "command": ["x"]}
UNFIT = {
    "no label": ("configmaps", "metadata.labels", {}),
    "another's label": ("services", "metadata.labels", {"app.kubernetes.io/managed-by": "Helm"}),
    "no owner": ("networkpolicies", "metadata.ownerReferences", []),
    "another owner": ("configmaps", f"{OWNER}kind", "Deployment"),
    "another group's owner": ("configmaps", f"{OWNER}apiVersion", "evil.dev/v1"),
    "an owner that is no controller": ("configmaps", f"{OWNER}controller", False),
    "an account": ("jobs", f"{POD}serviceAccountName", "default"),
    "a token": ("jobs", f"{POD}automountServiceAccountToken", True),
    "the token of old": ("jobs", f"{POD}automountServiceAccountToken", None),
    "the host's network": ("jobs", f"{POD}hostNetwork", True),
    "the host's processes": ("jobs", f"{POD}hostPID", True),
    "root": ("jobs", f"{POD}securityContext.runAsUser", 0),
    "perhaps root": ("jobs", f"{POD}securityContext.runAsNonRoot", None),
    "no seccomp": ("jobs", f"{POD}securityContext.seccompProfile", {"type": "Unconfined"}),
    "sysctls": ("jobs", f"{POD}securityContext.sysctls", [{"name": "kernel.shm_rmid_forced", "value": "1"}]),
    "a path of the host": ("jobs", f"{POD}volumes", [{"name": "job", "hostPath": {"path": "/"}}]),
    "a Secret": ("jobs", f"{POD}volumes", [{"name": "job", "secret": {"secretName": "s"}}]),
    "another container": ("jobs", f"{POD}initContainers", [SIDECAR]),
    "privilege": ("jobs", f"{TRAINER}securityContext", {"privileged": True, "capabilities": {"drop": ["ALL"]}}),
    "escalation": ("jobs", f"{TRAINER}securityContext.allowPrivilegeEscalation", None),
    "capabilities": ("jobs", f"{TRAINER}securityContext.capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
    "a root of its own": ("jobs", f"{TRAINER}securityContext.runAsUser", 0),
    "a port of the host": ("jobs", f"{TRAINER}ports", [{"name": "http", "containerPort": 9470, "hostPort": 9470}]),
    "an address": ("services", "spec.externalIPs", ["192.0.2.1"]),
    "a balancer": ("services", "spec", {"type": "LoadBalancer", "ports": [{"port": 80}]}),
}

OF_VOLUMES_AND_PORTS = {f"{POD}volumes": "volumeMounts", f"{POD}hostNetwork": "ports"}


@pytest.fixture
def ask(operator_cluster, world, token):
    """A function that makes a request as the account, and returns why it was refused, or nothing."""

    def request(method, path, body=None, *, dry=True):
        code, answer = operator_cluster.request(method, path + ("?dryRun=All" if dry else ""), body, token=token)
        denied = code == 422 and f"ValidatingAdmissionPolicy '{HOME}'" in answer["message"]
        assert denied or code in (200, 201), (code, answer["message"])
        return answer["message"] if denied else ""

    return request


@pytest.fixture
def keep(operator_cluster, world):
    """A function that makes an object which the garbage collector cannot take, though its owner does not exist."""
    made = []

    def make(plural, manifest):
        path = world.path(plural, manifest["metadata"]["name"])
        manifest["metadata"]["finalizers"] = ["unfreeze.dev/test"]
        operator_cluster.create(world.path(plural), manifest)
        made.append(path)

    yield make
    for path in made:
        operator_cluster.request("PATCH", path, {"metadata": {"finalizers": None}})


def test_it_makes_the_children_of_jobs_and_no_others(world, ask):
    made = children()
    for plural, manifest in made.items():
        assert ask("POST", world.path(plural), manifest) == "", plural
        assert "own namespace" in ask("POST", world.path(plural).replace(world.namespace, HOME), manifest)
        assert "cluster's own" in ask("POST", world.path(plural).replace(world.namespace, "kube-system"), manifest)
    image = {"name": "job", "image": {"reference": f"registry.example/bert@sha256:{'0' * 64}"}}
    volumes = [image, *made["jobs"]["spec"]["template"]["spec"]["volumes"][1:]]
    assert ask("POST", world.path("jobs"), changed(made["jobs"], f"{POD}volumes", volumes)) == "", "a model in an image"
    for what, (plural, path, value) in UNFIT.items():
        manifest = changed(made[plural], path, value)
        if path in OF_VOLUMES_AND_PORTS:  # what the container says of them is not to be wrong first
            manifest["spec"]["template"]["spec"]["containers"][0].pop(OF_VOLUMES_AND_PORTS[path])
        assert ask("POST", world.path(plural), manifest), what


def test_the_job_of_helm_test_may_lie_in_its_namespace(world, ask):
    for plural, manifest in children(name="unfreeze-test").items():
        assert ask("POST", world.path(plural).replace(world.namespace, HOME), manifest) == "", plural


def test_it_changes_and_deletes_what_it_manages_and_nothing_else(world, ask, keep):
    made = children()
    made["jobs"]["spec"]["suspend"] = True
    note = {"metadata": {"annotations": {"note": "x"}}}
    for plural, manifest in made.items():
        mine, theirs = copy.deepcopy(manifest), copy.deepcopy(manifest)
        mine["metadata"]["name"], theirs["metadata"]["name"] = "mine", "theirs"
        theirs["metadata"]["ownerReferences"] = []
        for one in (mine, theirs):
            keep(plural, one)
        assert ask("PATCH", world.path(plural, "mine"), note) == ""
        assert ask("PATCH", world.path(plural, "mine"), {"metadata": {"labels": {MANAGED_BY_LABEL: "nobody"}}})
        assert ask("PATCH", world.path(plural, "theirs"), note)
        if plural in ("jobs", "services"):
            assert ask("PATCH", world.path(plural, "mine") + "/status", note)
        taken = {"metadata": {"ownerReferences": mine["metadata"]["ownerReferences"]}}
        assert ask("PATCH", world.path(plural, "theirs"), taken), "nor takes it over"
        assert ask("DELETE", world.path(plural, "mine")) == ""
        assert ask("DELETE", world.path(plural, "theirs"))


def test_of_pods_it_deletes_and_fails_those_of_its_jobs(world, ask, keep):
    template = children()["jobs"]["spec"]["template"]
    pod = {"metadata": {**template["metadata"], "name": "mine"}, "spec": {**template["spec"], "schedulerName": "none"}}
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "job", "uid": "u", "controller": True}
    pod["metadata"]["ownerReferences"] = [owner]
    assert ask("POST", world.path("pods"), pod), "the Job controller makes pods"
    keep("pods", pod)
    bare = copy.deepcopy(pod)
    bare["metadata"] |= {"name": "theirs", "ownerReferences": []}
    keep("pods", bare)
    failed = {"status": {"phase": "Failed"}}
    assert ask("PATCH", world.path("pods", "mine") + "/status", failed) == ""
    assert ask("PATCH", world.path("pods", "theirs") + "/status", failed)
    assert ask("PATCH", world.path("pods", "mine"), {"metadata": {"annotations": {"note": "x"}}})
    assert ask("DELETE", world.path("pods", "theirs"))
    assert ask("DELETE", world.path("pods", "mine")) == ""
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "mine"},
        "target": {"kind": "Node", "name": "n"},
    }
    assert ask("POST", world.path("pods", "mine") + "/binding", binding)


def test_of_jobs_it_writes_the_status_and_deletes_the_finished(operator_cluster, world, ask):
    manifest = {
        "apiVersion": "unfreeze.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "job"},
        "spec": spec(suspend=True),
    }
    path = world.path("finetunejobs", "job")
    assert ask("POST", world.path("finetunejobs"), manifest)
    operator_cluster.create(world.path("finetunejobs"), manifest)
    assert ask("PATCH", path, {"metadata": {"labels": {"a": "b"}}})
    assert ask("DELETE", path), "it has not finished"
    assert ask("PATCH", f"{path}/status", {"status": {"completionTime": "2026-01-01T00:00:00Z"}}, dry=False) == ""
    assert ask("DELETE", path) == ""
    at_home = path.replace(world.namespace, HOME)
    operator_cluster.create(at_home.removesuffix("/job"), manifest)
    assert ask("PATCH", f"{at_home}/status", {"status": {"phase": "Failed"}}) == "", "it says why there are no pods"


def test_nothing_else_is_its_business(world, ask):
    binding = {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [],
    }
    for path, body in (
        (world.path("secrets"), {"metadata": {"name": "s"}}),
        (world.path("serviceaccounts"), {"metadata": {"name": "s"}}),
        ("/api/v1/namespaces", {"metadata": {"name": "another"}}),
        ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {"metadata": {"name": "more"}, **binding}),
        (world.path("serviceaccounts", "default") + "/token", {"spec": {}}),
        (f"/apis/coordination.k8s.io/v1/namespaces/{world.namespace}/leases", {"metadata": {"name": "l"}}),
    ):
        assert ask("POST", path, body), path
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{HOME}/leases"
    assert ask("POST", lease, {"metadata": {"name": "l"}}) == ""
    for group, kind, given in (
        ("authentication.k8s.io", "TokenReview", {"token": "x"}),
        (
            "authorization.k8s.io",
            "SubjectAccessReview",
            {"user": "x", "nonResourceAttributes": {"path": "/", "verb": "get"}},
        ),
    ):
        review = {"apiVersion": f"{group}/v1", "kind": kind, "spec": given}
        assert ask("POST", f"/apis/{group}/v1/{kind.lower()}s", review, dry=False) == ""


def test_others_are_not_judged(operator_cluster, world, token):
    assert operator_cluster.request("POST", world.path("secrets"), {"metadata": {"name": "s"}})[0] == 201


def test_the_operator_needs_no_more(operator_cluster, operator, world):
    """A job that is suspended, resumed, changed, loses a pod, ends and is deleted in time, under the policy."""
    applied(operator_cluster, yaml.safe_load_all(FILE.read_text()))
    try:
        world.create(fake={"holdAt": 1})
        world.wait_phase("Running")
        world.suspend(True)
        world.wait_phase("Suspended")
        world.patch({"distribution": {"numNodes": 2}})
        world.suspend(False)
        world.wait_phase("Running")
        path = world.path("networkpolicies", "job-trainers")
        world.cluster.request("PATCH", path, {"spec": {"egress": None}})
        until(lambda: world.cluster.get(path)["spec"].get("egress"), "the policy is repaired")
        world.cluster.request("PATCH", path, {"metadata": {"labels": {MANAGED_BY_LABEL: None}}})
        until(lambda: MANAGED_BY_LABEL in world.cluster.get(path)["metadata"]["labels"], "the label is put back")
        world.go()
        world.wait_phase("Succeeded")
        world.patch({"runPolicy": {"ttlSecondsAfterFinished": 0}})
        until(lambda: not world.list("finetunejobs"), "it is deleted")
        log = operator.log.read_text()
        assert "ValidatingAdmissionPolicy" not in log
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            operator_cluster.kubectl("delete", kind, "unfreeze-operator")
