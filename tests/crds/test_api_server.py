"""The same corpus, and generated manifests, put to a real API server: it must say exactly what validate() says.

The oldest release that is supported must take and refuse the same; it says some things in other words.
"""

import json
import subprocess
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.cluster.binaries import OLDEST
from tests.crds import of_tasks
from tests.crds import test_quantities as quantities
from tests.crds.corpus import PATH, ask_create, ask_update, load, patched
from tests.crds.generate import broken, manifests
from tests.crds.test_budget_of_progress import largest
from tests.operator.test_budget import full
from tests.operator.world import until
from unfreeze_api.apiserver.validate import defaulted, validate, warnings
from unfreeze_api.contracts.progress import CheckpointInfo, PhaseResult, ProgressInfo
from unfreeze_api.contracts.status import (
    Condition,
    Cost,
    Failure,
    FineTuneJobStatus,
    HistoryPoint,
    Nodes,
    Omitted,
    Restarts,
    StateSeconds,
    Summary,
)
from unfreeze_api.generate import policy
from unfreeze_api.generate.crd import definition, schema
from unfreeze_operator.status.budget import wire

pytestmark = pytest.mark.cluster

BASE = load("base.yaml")
MANY = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FULL_STATUS = FineTuneJobStatus(
    observed_generation=1,
    phase="Running",
    conditions=[Condition(type="Running", status="True", reason="PodsReady", message="text", last_transition_time=NOW)],
    start_time=NOW,
    completion_time=NOW,
    nodes=Nodes(desired=2, ready=1),
    progress=ProgressInfo(
        percent=41,
        step=410,
        total_steps=1000,
        epoch=1.5,
        phase_index=1,
        phase_count=4,
        phase_name="layer.5",
        loss=0.42,
        metrics={"accuracy": 0.81},
        samples_per_second=310.5,
        eta_seconds=95,
    ),
    history=[HistoryPoint(step=205, loss=0.9, metric=0.5), HistoryPoint(step=410, loss=0.42, metric=0.81)],
    checkpoint=CheckpointInfo(step=400, time=NOW),
    restarts=Restarts(in_place=1, pods=2),
    phases=[PhaseResult(name="head", steps=170, seconds=21.5, trainable_parameters=2310, metrics={"loss": 0.5})],
    results={"test.accuracy": 0.93},
    omitted=Omitted(phases=1, metrics=2, results=3),
    state_seconds=StateSeconds(state="Training", since=NOW, pending=3, starting=20, training=95),
    accelerator_seconds=380,
    cost=Cost(
        accelerator_hours=0.1056,
        estimated_accelerator_hours=0.2,
        amount=0.26388889,
        estimated_amount=0.5,
        currency="EUR",
        text="0.26 of 0.50 EUR",
    ),
    failure=Failure(reason="Error", message="m", pod="p", node="n", rank=3, exit_code=137, log_tail="t"),
    warnings=["spec.output.export is deprecated"],
    summary=Summary(progress="41% (2/4)", metric="accuracy 0.81", eta="1m35s", checkpoint="400"),
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


def assert_alike(ours, theirs, what=None):
    if OLDEST:
        ours, theirs = bool(ours), bool(theirs)
    assert ours == theirs, what


def compare(cluster, namespace, manifest):
    stored, theirs = ask_create(cluster, namespace, manifest)
    assert_alike(sorted(validate(manifest)), theirs)
    if not theirs:
        assert stored["spec"] == defaulted(manifest)["spec"]
    return theirs


def test_quantities(cluster, namespace):
    refused = [bool(compare(cluster, namespace, quantities.job(*pair))) for pair in quantities.pairs()]
    assert 20 < sum(refused) < len(refused) - 20


def test_good(cluster, namespace):
    for case in load("good.yaml"):
        assert compare(cluster, namespace, patched(BASE, case["patch"])) == [], case["name"]


def test_bad(cluster, namespace):
    for case in load("bad.yaml"):
        assert compare(cluster, namespace, patched(BASE, case["patch"])) != [], case["name"]


def test_what_each_task_declares(cluster, namespace):
    for name, manifest in of_tasks.good().items():
        assert compare(cluster, namespace, manifest) == [], name
    for name, (manifest, _) in of_tasks.bad().items():
        assert compare(cluster, namespace, manifest) != [], name


def test_updates(cluster, namespace):
    for index, case in enumerate(load("updates.yaml")):
        before = patched(patched(BASE, case.get("before", {})), {"metadata": {"name": f"job-{index}"}})
        stored = cluster.create(PATH.format(namespace=namespace), before)
        after = patched(before, case["after"])
        theirs = ask_update(cluster, namespace, stored, after)
        assert_alike(sorted(validate(after, before)), theirs, case["name"])
        assert_alike(sorted(map(str, theirs)), sorted(case.get("causes", [])), case["name"])


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
        "COST", "RESTARTS",
    ]  # fmt: skip
    assert "FullFineTuning" in row
    assert "zeroStage" in cluster.kubectl("explain", "ftj.spec.distribution", "--recursive")


def test_status_is_stored_whole(cluster, namespace):
    path = PATH.format(namespace=namespace)
    stored = cluster.create(path, BASE)
    status = json.loads(FULL_STATUS.to_json())
    assert set(status) == set(schema()["properties"]["status"]["properties"]), "a field is not tried"
    code, answer = cluster.request("PUT", f"{path}/job/status?fieldValidation=Strict", stored | {"status": status})
    assert (code, answer.get("message")) == (200, None)
    assert answer["status"] == status


def test_kubectl_prints_what_the_api_server_warns_of(cluster, namespace):
    manifest = patched(BASE, {"spec": {"output": {"export": ["Model"]}}})
    (warning,) = warnings(manifest)

    def said(*arguments, stdin=None):
        command = [cluster.folder / "bin/kubectl", "--kubeconfig", cluster.kubeconfig, *arguments, "-n", namespace]
        done = subprocess.run(command, input=json.dumps(stdin), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    cluster.kubectl("apply", "-f", str(policy.FILE))
    try:
        dry = ("create", "--dry-run=server", "-f", "-")
        until(lambda: "deprecated" in said(*dry, stdin=manifest), "the policy is in force")
        (line,) = said("apply", "-f", "-", stdin=manifest).splitlines()
        assert line.startswith("Warning: ")
        assert line.endswith(warning)
        suspend = json.dumps({"spec": {"runPolicy": {"suspend": True}}})
        assert len(said("patch", "ftj/job", "--type=merge", "--patch", suspend).splitlines()) == 1
        renamed = {"metadata": {"name": "other"}, "spec": {"output": {"exports": ["Model"]}}}
        assert said("apply", "-f", "-", stdin=patched(BASE, renamed)) == ""
    finally:
        cluster.kubectl("delete", "-f", str(policy.FILE))


def test_the_largest_status_is_taken(cluster, namespace):
    path = PATH.format(namespace=namespace)
    stored = cluster.create(path, BASE)
    status = wire(full(largest(63), character="<"))
    code, answer = cluster.request("PUT", f"{path}/job/status?fieldValidation=Strict", stored | {"status": status})
    assert (code, answer.get("message")) == (200, None)
    assert answer["status"] == status
