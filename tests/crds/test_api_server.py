"""The same corpus, and generated manifests, put to a real API server: it must say exactly what validate() says."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.crds.corpus import PATH, ask_create, ask_update, load, patched
from tests.crds.generate import broken, manifests
from unfreeze_api.crd import definition
from unfreeze_api.validate import defaulted, validate

pytestmark = pytest.mark.cluster

BASE = load("base.yaml")
MANY = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module", autouse=True)
def crd(cluster):
    """The CRD, installed; it stays for the tests of other rooms."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    wanted = definition()
    name = wanted["metadata"]["name"]
    status, _ = cluster.request("POST", path, wanted)
    if status == 409:
        status, _ = cluster.request("PATCH", f"{path}/{name}", {"spec": wanted["spec"]})
    assert status in (200, 201)

    def established(answer):
        return any(
            c["type"] == "Established" and c["status"] == "True"
            for c in answer.get("status", {}).get("conditions") or ()
        )

    cluster.wait_for(f"{path}/{name}", established)
    cluster.wait_for(PATH.format(namespace="default"), bool)


def compare(cluster, namespace, manifest):
    stored, theirs = ask_create(cluster, namespace, manifest)
    ours = sorted(validate(manifest))
    assert ours == theirs
    if not theirs:
        assert stored["spec"] == defaulted(manifest)["spec"]
    return theirs


def test_good(cluster, namespace):
    for case in load("good.yaml"):
        assert compare(cluster, namespace, patched(BASE, case["patch"])) == [], case["name"]


def test_bad(cluster, namespace):
    for case in load("bad.yaml"):
        assert compare(cluster, namespace, patched(BASE, case["patch"])) != [], case["name"]


def test_updates(cluster, namespace):
    for index, case in enumerate(load("updates.yaml")):
        before = patched(patched(BASE, case.get("before", {})), {"metadata": {"name": f"job-{index}"}})
        stored = cluster.create(PATH.format(namespace=namespace), before)
        after = patched(before, case["after"])
        theirs = ask_update(cluster, namespace, stored, after)
        assert sorted(validate(after, before)) == theirs, case["name"]
        assert sorted(map(str, theirs)) == sorted(case.get("causes", [])), case["name"]


def test_explicit_nulls(cluster, namespace):
    manifest = patched(BASE, {})
    manifest["spec"] |= {"adapter": None, "training": None, "template": {"env": None}}
    assert compare(cluster, namespace, manifest) == []


@pytest.mark.parametrize("strategy", [manifests(), broken()], ids=["valid", "broken"])
def test_generated(cluster, namespace, strategy):
    @MANY
    @given(strategy)
    def judge(manifest):
        compare(cluster, namespace, manifest)

    judge()


def test_columns_and_explanations(cluster, namespace):
    cluster.create(PATH.format(namespace=namespace), BASE)
    head, row = cluster.kubectl("get", "ftj", "-n", namespace, "-o", "wide").splitlines()
    assert head.split() == [
        "NAME", "STATE", "STRATEGY", "NODES", "PROGRESS", "METRIC", "ETA", "AGE", "MODEL", "ENGINE", "CHECKPOINT",
        "RESTARTS",
    ]  # fmt: skip
    assert "FullFineTuning" in row
    assert "zeroStage" in cluster.kubectl("explain", "ftj.spec.distribution", "--recursive")
