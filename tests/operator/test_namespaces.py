"""An operator for some namespaces alone: it works by Roles in them, and nothing that it asks for is outside of them."""

import click
import pytest

from tests.operator.test_rights import ROLE
from tests.operator.world import condition
from unfreeze_operator.main import main

RBAC = "/apis/rbac.authorization.k8s.io/v1"
ACCOUNT = {"kind": "ServiceAccount", "name": "unfreeze-operator", "namespace": "unfreeze-system"}


def bind_by_role(world):
    """Give the operator its rights in one namespace."""
    group = f"{RBAC}/namespaces/{world.namespace}"
    world.cluster.create(f"{group}/roles", {"metadata": {"name": "unfreeze-operator"}, "rules": ROLE["rules"]})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "unfreeze-operator"}
    binding = {"metadata": {"name": "unfreeze-operator"}, "roleRef": reference, "subjects": [ACCOUNT]}
    world.cluster.create(f"{group}/rolebindings", binding)


@pytest.fixture
def no_cluster_role(operator_cluster, operator_kubeconfig):
    """Nothing binds the operator in the whole cluster, for one test."""
    path = f"{RBAC}/clusterrolebindings"
    binding = operator_cluster.get(f"{path}/unfreeze-operator")
    operator_cluster.request("DELETE", f"{path}/unfreeze-operator")
    yield
    kept = {"metadata": {"name": "unfreeze-operator"}, "roleRef": binding["roleRef"], "subjects": binding["subjects"]}
    operator_cluster.create(path, kept)


@pytest.mark.cluster
def test_roles_in_its_namespaces_are_all_that_it_needs(lone_operator, worlds, no_cluster_role):
    one, two, strange = worlds(), worlds(), worlds()
    for world in (one, two):
        bind_by_role(world)
    lone_operator.namespaces = (one.namespace, "deleted", two.namespace)
    lone_operator.start()
    strange.create()
    one.create(nodes=2, fake={"holdAt": 5})
    two.create(ttlSecondsAfterFinished=3600)
    two.wait_phase("Succeeded")
    one.wait(lambda status: status.get("progress", {}).get("step") == 5)
    one.suspend(True)
    one.wait_phase("Suspended")
    one.patch({"distribution": {"numNodes": 1}})
    one.suspend(False)
    one.go()
    assert condition(one.wait_phase("Succeeded"), "Complete")["status"] == "True"
    assert "phase" not in strange.status(), "nobody has looked at it"
    assert strange.children("jobs") == []
    assert lone_operator.metric(f'unfreeze_jobs{{namespace="{strange.namespace}",phase="Pending"}}') is None
    refused = [line["message"] for line in lone_operator.lines() if "forbidden" in line["message"]]
    assert refused, "a namespace that is gone took the Role with it"
    assert all(message.startswith("Namespace deleted is left out until") for message in refused)


def test_namespaces_come_by_flags_or_by_the_environment(monkeypatch):
    by_flags = ["--trainer-image=i", "--namespace=team-a", "--namespace=team-b"]
    assert main.make_context("operator", by_flags).params["namespaces"] == ("team-a", "team-b")
    monkeypatch.setenv("UNFREEZE_OPERATOR_NAMESPACES", "team-a team-b")
    assert main.make_context("operator", ["--trainer-image=i"]).params["namespaces"] == ("team-a", "team-b")


WRONG = (
    "workers=0",
    "progress-interval=0",
    "status-interval=-1",
    "lost-pod-grace=-1",
    "gang-patience=-1",
    "watch-silence=0",
)


@pytest.mark.parametrize("option", [*WRONG, "lease-seconds=0", "http-port=70000"])
def test_an_option_with_which_nothing_would_work_is_refused_by_name(option):
    with pytest.raises(click.BadParameter) as refused:
        main.make_context("operator", ["--trainer-image=i", f"--{option}"])
    assert f"'--{option.partition('=')[0]}'" in refused.value.format_message()
