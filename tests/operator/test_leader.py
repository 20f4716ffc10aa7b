"""Two operators at once: one leads and the other takes over; without an election they still make no second gang."""

from __future__ import annotations

import copy

import pytest
import yaml

from tests.cluster.cluster import REPOSITORY
from tests.cluster.proxy import Answer
from tests.operator.process import ForkedOperator
from tests.operator.world import until

pytestmark = pytest.mark.cluster

LEASES = "/apis/coordination.k8s.io/v1/namespaces/unfreeze-system/leases"
LEASE = f"{LEASES}/unfreeze-operator"
ROLE = next(
    manifest
    for manifest in yaml.safe_load_all((REPOSITORY / "operator/deploy/leader-election/leases.yaml").read_text())
    if manifest["kind"] == "Role"
)
ROLE_PATH = "/apis/rbac.authorization.k8s.io/v1/namespaces/unfreeze-system/roles/unfreeze-operator-election"
ELECTION = ("--leader-election", "--lease-namespace=unfreeze-system", "--lease-seconds=3")


@pytest.fixture
def other_operator(lone_operator, operator_kubeconfig, tmp_path):
    """A second one beside the lone operator, not started yet."""
    folder = tmp_path / "other"
    folder.mkdir()
    process = ForkedOperator(operator_kubeconfig, folder)
    yield process
    process.kill()


@pytest.fixture
def elected(lone_operator, other_operator, operator_cluster):
    """Two candidates, and no Lease from earlier."""
    operator_cluster.request("DELETE", LEASE)
    for process in (lone_operator, other_operator):
        process.options = ELECTION
    return lone_operator, other_operator


def leads(process):
    return process.metric("unfreeze_leading") == 1


def test_the_second_one_waits_and_takes_over_when_the_first_has_died(elected, world):
    first, second = elected
    first.start()
    until(lambda: leads(first), "the first leads")
    second.start()
    assert second.get("/readyz") == (200, "standing by\n")
    world.create(nodes=2, fake={"holdAt": 5})
    world.wait(lambda s: s.get("progress", {}).get("step") == 5)
    assert second.metric("unfreeze_leading") == 0
    assert second.metric("unfreeze_status_writes_total") == 0
    first.kill()
    until(lambda: leads(second), "the second leads")
    world.go()
    end = world.wait_phase("Succeeded")
    assert end["restarts"] == {"inPlace": 0, "pods": 0}
    assert world.cluster.get(LEASE)["spec"]["leaseTransitions"] == 1


def test_who_ends_in_good_order_gives_the_lease_back(elected, operator_cluster):
    first, second = elected
    first.start()
    until(lambda: leads(first), "the first leads")
    assert first.stop() == 0
    assert operator_cluster.get(LEASE)["spec"]["holderIdentity"] == ""
    second.start()
    until(lambda: leads(second), "the second leads")
    first.start()
    assert first.stop() == 0, "a standby ends in good order too"


def test_who_cannot_renew_ends_before_another_one_leads(elected, proxy, tmp_path):
    first, second = elected
    first.kubeconfig = proxy.kubeconfig(first.kubeconfig, tmp_path / "kubeconfig")
    first.start()
    until(lambda: leads(first), "the first leads")
    second.start()
    proxy.inject(Answer(500), "get", "leases", times=10**6)
    until(lambda: not first.running, "the first ends")
    until(lambda: leads(second), "the second leads")
    (end,) = [line["time"] for line in first.lines() if "the lease could not be renewed in time" in line["message"]]
    (turn,) = [line["time"] for line in second.lines() if "This operator leads" in line["message"]]
    assert end < turn


def test_who_finds_another_leader_ends(elected, operator_cluster):
    first, _ = elected
    first.start()
    until(lambda: leads(first), "the first leads")
    operator_cluster.request("PATCH", LEASE, {"spec": {"holderIdentity": "usurper", "leaseDurationSeconds": 3600}})
    until(lambda: not first.running, "the first ends")
    assert "usurper leads" in first.log.read_text()


@pytest.mark.parametrize("verb", ["get", "create", "patch"])
def test_each_right_to_the_lease_is_needed(elected, operator_cluster, verb):
    rules = copy.deepcopy(ROLE["rules"])
    for rule in rules:
        rule["verbs"] = [one for one in rule["verbs"] if one != verb] or ["watch"]
    first, _ = elected
    if verb == "patch":  # the lease that somebody gave back
        first.start()
        until(lambda: leads(first), "the first leads")
        first.stop()
    try:
        operator_cluster.request("PATCH", ROLE_PATH, {"rules": rules})
        first.launch()
        sentence = f'cannot {verb} resource "leases"'
        until(lambda: sentence in first.log.read_text().replace('\\"', '"'), sentence)
        assert not leads(first)
    finally:
        operator_cluster.request("PATCH", ROLE_PATH, {"rules": ROLE["rules"]})


def test_operators_with_leases_of_different_names_lead_at_once(elected, operator_cluster):
    """As two releases in one namespace."""
    rules = copy.deepcopy(ROLE["rules"])
    rules[1]["resourceNames"].append("other")
    first, second = elected
    second.options = (*ELECTION, "--lease-name=other")
    try:
        operator_cluster.request("PATCH", ROLE_PATH, {"rules": rules})
        first.start()
        second.start()
        until(lambda: leads(first) and leads(second), "both lead")
    finally:
        operator_cluster.request("PATCH", ROLE_PATH, {"rules": ROLE["rules"]})
        operator_cluster.request("DELETE", f"{LEASES}/other")


def test_two_without_an_election_make_one_gang_for_each_job(lone_operator, other_operator, world):
    """As by a mistake, or for a moment during a rolling update."""
    lone_operator.start()
    other_operator.start()
    names = [f"job-{number}" for number in range(8)]
    for name in names:
        world.create(name, nodes=2, fake={"holdAt": 5})
    for name in names:
        world.wait(lambda s: s.get("progress", {}).get("step") == 5, name)
        world.suspend(True, name)
    for name in names:
        world.wait_phase("Suspended", name)
        world.suspend(False, name)
        world.go(name)
    for name in names:
        end = world.wait_phase("Succeeded", name)
        assert end["restarts"] == {"inPlace": 0, "pods": 0}, name
    for plural in ("jobs", "services", "configmaps"):
        assert sorted(child["metadata"]["labels"]["unfreeze.dev/job-name"] for child in world.children(plural)) == names
    ended = [pod for pod in world.children("pods") if pod["status"]["phase"] == "Succeeded"]
    assert len(ended) == 2 * len(names)
