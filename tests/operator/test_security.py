"""What docs/security.md promises: the pod's own limits, what a job's author cannot ask for, and that each line is tested."""

import ast
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings

from tests.cluster.cluster import REPOSITORY
from tests.crds.generate import manifests
from tests.operator.fakes import IMAGE, FakeCluster
from tests.operator.world import spec
from unfreeze_api.apiserver.validate import defaulted
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.manifests.children import indexed_job
from unfreeze_operator.objects.carried import Carried
from unfreeze_operator.objects.resources import GangNames
from unfreeze_operator.objects.views import fine_tune_job_view

NAMES = GangNames.of("job")

DOCUMENT = (REPOSITORY / "docs/security.md").read_text()
ROWS = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \|$", DOCUMENT, re.MULTILINE)

# https://kubernetes.io/docs/concepts/security/pod-security-standards: the controls of "restricted" and "baseline".
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SELINUX = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


@pytest.mark.cluster
def test_the_pod_keeps_every_control_of_the_restricted_standard(operator, world):
    world.create(fake={"holdAt": 1})
    world.wait_phase("Running")
    (pod,) = world.children("pods")
    spec_, annotations = pod["spec"], pod["metadata"].get("annotations", {})
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers", "initContainers", "ephemeralContainers"} & set(spec_)
    whole = spec_["securityContext"]
    assert whole["runAsNonRoot"] is True
    assert whole["runAsUser"] == whole["runAsGroup"] == whole["fsGroup"] == 65532
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"sysctls", "windowsOptions", "supplementalGroups"} & set(whole)
    for context in (whole, *(container["securityContext"] for container in spec_["containers"])):
        assert context.get("seLinuxOptions", {}).get("type") in SELINUX
        assert context.get("appArmorProfile", {}).get("type", "RuntimeDefault") == "RuntimeDefault"
    (container,) = spec_["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert not any("hostPort" in port for port in container["ports"])
    assert {kind for volume in spec_["volumes"] for kind in volume if kind != "name"} <= VOLUMES
    assert not any("apparmor" in key or "seccomp" in key for key in annotations)


@pytest.mark.cluster
def test_the_pod_holds_no_credential_of_the_cluster(operator, world):
    world.create(fake={"holdAt": 1})
    world.wait_phase("Running")
    (pod,) = world.children("pods")
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["serviceAccountName"] == "default"
    assert not any("projected" in volume or "secret" in volume for volume in pod["spec"]["volumes"])
    mounts = [mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]]
    assert not any(path.startswith("/var/run/secrets") for path in mounts)


HOST_PATH = {"name": "host", "hostPath": {"path": "/"}}
ASKED = {
    "template.hostNetwork": True,
    "template.hostPID": True,
    "template.hostIPC": True,
    "template.hostUsers": True,
    "template.nodeName": "node-0",
    "template.serviceAccountName": "unfreeze-operator",
    "template.serviceAccount": "unfreeze-operator",
    "template.automountServiceAccountToken": True,
    "template.securityContext": {"privileged": True, "runAsUser": 0},
    "template.shareProcessNamespace": True,
    "template.volumes": [HOST_PATH],
    "template.volumeMounts": [{"name": "host", "mountPath": "/host"}],
    "template.containers": [{"name": "more", "image": "i", "securityContext": {"privileged": True}}],
    "template.initContainers": [{"name": "more", "image": "i"}],
    "template.command": ["sh", "-c", "id"],
    "template.ports": [{"containerPort": 1, "hostPort": 1}],
    "template.hostAliases": [{"ip": "127.0.0.1", "hostnames": ["pypi.org"]}],
    "template.dnsConfig": {"nameservers": ["192.0.2.1"]},
    "template.spec": {"hostNetwork": True},
    "template.networkPolicy": {"egress": [{}]},
    "template.env": [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "k", "namespace": "kube-system"}}}
    ],
    "model.secretRef": {"name": "a", "namespace": "kube-system"},
}


@pytest.mark.cluster
@pytest.mark.parametrize("path", ASKED)
def test_a_job_cannot_ask_for_more_than_a_restricted_pod_has(operator_cluster, world, path):
    body = spec()
    block, field = path.split(".")
    body[block][field] = ASKED[path]
    manifest = {"apiVersion": "unfreeze.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "job"}, "spec": body}
    target = f"{world.path('finetunejobs')}?dryRun=All&fieldValidation="
    code, answer = operator_cluster.request("POST", f"{target}Strict", manifest)
    assert code == 400
    assert "unknown field" in answer["message"]
    # Clients that do not ask for strictness: the field is dropped, so that nothing can come of it.
    code, answer = operator_cluster.request("POST", f"{target}Ignore", manifest)
    assert code != 201 or "kube-system" not in json.dumps(answer["spec"])
    assert code != 201 or field == "env" or field not in answer["spec"][block]


def claim_of(destination):
    return "pvc://" + destination.removeprefix("pvc://").partition("/")[0]


@pytest.mark.slow
@settings(max_examples=50, suppress_health_check=list(HealthCheck))
@given(manifests())
def test_children_lie_in_the_jobs_namespace_and_mount_only_its_claims(manifest):
    stored = defaulted(manifest)
    meta = {"name": "job", "namespace": "ns", "uid": "u1", "resourceVersion": "1"}
    view = fine_tune_job_view({**stored, "metadata": meta})
    context = FakeCluster().context(view)
    for action in plan(context).actions:
        assert action.manifest["metadata"]["namespace"] == "ns"
    pod = indexed_job(view, context.spec, IMAGE, Carried(), NAMES)["spec"]["template"]["spec"]
    claims = [volume["persistentVolumeClaim"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    sources, cache = json.dumps(manifest["spec"]), manifest["spec"].get("sources", {}).get("cacheClaim")
    assert all(f"pvc://{claim['claimName']}" in sources or claim["claimName"] == cache for claim in claims)
    features = context.spec.feature_cache
    written = (context.spec.output.destination, *([features.destination] if features else []))
    assert all(
        claim.get("readOnly") or f"pvc://{claim['claimName']}" in map(claim_of, written) or claim["claimName"] == cache
        for claim in claims
    )
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= VOLUMES


@pytest.mark.cluster
def test_a_secret_stays_where_it_is(operator, world):
    secret = {"metadata": {"name": "hub"}, "stringData": {"token": "s3cr3t-of-the-hub"}}
    world.cluster.create(world.path("secrets"), secret)
    body = spec(fake={"holdAt": 1})
    body["template"]["env"] += [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]
    world.create(body=body)
    world.wait_phase("Running")
    world.go()
    world.wait_phase("Succeeded")
    world.wait_events("Running", "Succeeded")
    kinds = ("finetunejobs", "jobs", "pods", "configmaps", "services", "networkpolicies", "events")
    everything = json.dumps([world.list(plural) for plural in kinds]) + operator.log.read_text()
    assert "s3cr3t-of-the-hub" not in everything
    assert operator.get("/metrics")[0] == 200
    assert "s3cr3t-of-the-hub" not in operator.get("/metrics")[1]


@pytest.mark.cluster
def test_a_quota_bounds_the_jobs_of_a_namespace(operator_cluster, world):
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"count/finetunejobs.unfreeze.dev": "1"}}}
    operator_cluster.create(world.path("resourcequotas"), quota)
    operator_cluster.wait_for(
        world.path("resourcequotas", "few"), lambda found: found.get("status", {}).get("used"), what="counted"
    )
    world.create("one", suspend=True)
    manifest = {
        "apiVersion": "unfreeze.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "two"},
        "spec": spec(),
    }
    code, answer = operator_cluster.request("POST", world.path("finetunejobs"), manifest)
    assert code == 403
    assert "exceeded quota" in answer["message"]


def test_the_threats_are_numbered_and_each_has_an_answer_and_a_test():
    assert [int(number) for number, *_ in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) >= 25
    assert all("`" in tests for *_, tests in ROWS)


@pytest.mark.parametrize("tests", [tests for *_, tests in ROWS], ids=[number for number, *_ in ROWS])
def test_the_tests_that_the_threat_model_names_exist(tests):
    for name in re.findall(r"`(.+?)`", tests):
        file, _, function = name.partition("::")
        text = (REPOSITORY / "tests" / file).read_text()
        if function:
            known = {
                node.name
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            assert function in known, name
