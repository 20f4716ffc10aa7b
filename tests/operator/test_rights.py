"""The operator's rights: it works with them, and every verb is needed."""

from __future__ import annotations

import copy

import pytest
import yaml

from tests.cluster.cluster import REPOSITORY
from tests.operator.world import spec, until

pytestmark = pytest.mark.cluster

PATH = "/apis/rbac.authorization.k8s.io/v1/clusterroles/unfreeze-operator"
ROLE = next(
    manifest
    for manifest in yaml.safe_load_all((REPOSITORY / "operator/deploy/base/rbac.yaml").read_text())
    if manifest["kind"] == "ClusterRole"
)
RIGHTS = {(r, verb) for rule in ROLE["rules"] for r in rule["resources"] for verb in rule["verbs"]}
ELSEWHERE = {("workloads", "list"), ("workloads", "watch")} | {right for right in RIGHTS if right[0] == "podgroups"}
"""Needed where Kueue is, and where the server has PodGroups: test_kueue.py, test_pod_groups.py."""
AT_START = sorted(right for right in RIGHTS - ELSEWHERE if right[1] in ("list", "watch"))


def without(resource, verbs):
    """Return the role's rules less some verbs on one resource."""
    rules = []
    for rule in copy.deepcopy(ROLE["rules"]):
        for one in rule["resources"]:
            left = [verb for verb in rule["verbs"] if one != resource or verb not in verbs]
            if left:
                rules.append({**rule, "resources": [one], "verbs": left})
    return {"rules": rules}


@pytest.fixture
def role(operator_cluster):
    """A function that takes verbs away; everything is given back after the test."""

    def take(resource, *verbs):
        assert operator_cluster.request("PATCH", PATH, without(resource, verbs))[0] == 200

    yield take
    operator_cluster.request("PATCH", PATH, {"rules": ROLE["rules"]})


def denied(operator, resource, verb):
    """Wait until the log tells that exactly this right is missing."""
    plural, _, sub = resource.partition("/")
    sentence = f'cannot {verb} resource "{plural}{"/" + sub if sub else ""}"'
    until(lambda: sentence in operator.log.read_text().replace('\\"', '"'), sentence)


def foreign(world, plural, body):
    """Create an object that stands in the way of a child."""
    return world.cluster.create(world.path(plural), body)


def deleted_before_it_ran(world):
    body = spec()
    body["template"]["nodeSelector"] = {"no": "such-node"}
    world.create(body=body)
    (waiting,) = world.wait(lambda status: status.get("waiting"))["waiting"]
    world.delete("pods", waiting["pod"])


POD = {"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}}
SCENARIOS = {
    ("jobs", "create"): lambda world: world.create(),
    ("services", "create"): lambda world: world.create(),
    ("configmaps", "create"): lambda world: world.create(),
    ("finetunejobs/status", "patch"): lambda world: world.create(),
    ("events", "create"): lambda world: world.create(),
    ("finetunejobs", "delete"): lambda world: world.create(ttlSecondsAfterFinished=0),
    ("pods/status", "patch"): deleted_before_it_ran,
    ("pods", "delete"): deleted_before_it_ran,
    ("jobs", "patch"): lambda world: (world.create(suspend=True), world.wait_phase("Suspended"), world.suspend(False)),
    ("jobs", "delete"): lambda world: (
        world.create(suspend=True),
        world.wait_phase("Suspended"),
        world.patch({"distribution": {"numNodes": 2}}),
    ),
    ("networkpolicies", "create"): lambda world: world.create(),
    ("networkpolicies", "get"): lambda world: (
        foreign(world, "networkpolicies", {"metadata": {"name": "job-trainers"}, "spec": {"podSelector": {}}}),
        world.create(),
    ),
    ("networkpolicies", "patch"): lambda world: (
        world.create(fake={"holdAt": 1}),
        world.wait_phase("Running"),
        world.cluster.request("PATCH", world.path("networkpolicies", "job-trainers"), {"spec": {"egress": None}}),
    ),
    ("services", "get"): lambda world: (
        foreign(world, "services", {"metadata": {"name": "job-trainers"}, "spec": {"ports": [{"port": 80}]}}),
        world.create(),
    ),
    ("configmaps", "get"): lambda world: (
        foreign(world, "configmaps", {"metadata": {"name": "job-job"}}),
        world.create(),
    ),
    ("jobs", "get"): lambda world: (
        foreign(world, "jobs", {"metadata": {"name": "job-train"}, "spec": {"suspend": True, "template": POD}}),
        world.create(),
    ),
    ("services", "patch"): lambda world: (
        world.create(fake={"holdAt": 1}),
        world.wait_phase("Running"),
        world.cluster.request(
            "PATCH", world.path("services", "job-trainers"), {"spec": {"publishNotReadyAddresses": False}}
        ),
    ),
    ("configmaps", "patch"): lambda world: (
        world.create(fake={"holdAt": 1}),
        world.wait_phase("Running"),
        world.cluster.request("PATCH", world.path("configmaps", "job-job"), {"data": {"job.json": "{}"}}),
    ),
}


def test_every_right_has_a_test():
    assert set(SCENARIOS) | set(AT_START) | ELSEWHERE == RIGHTS


@pytest.mark.parametrize("right", sorted(SCENARIOS), ids="-".join)
def test_a_right_is_used_when_its_time_comes(operator, world, role, right):
    role(*right)
    SCENARIOS[right](world)
    denied(operator, *right)


@pytest.mark.parametrize("right", AT_START, ids="-".join)
def test_a_right_is_used_at_the_start(lone_operator, world, role, right):
    world.create(body=spec())
    role(*right)
    lone_operator.launch()
    denied(lone_operator, *right)


def test_the_deployment_is_accepted_where_pods_are_restricted(operator_cluster, operator_kubeconfig):
    path = str(REPOSITORY / "operator/deploy")
    assert "deployment.apps/unfreeze-operator" in operator_cluster.kubectl("apply", "--dry-run=server", "-k", path)
