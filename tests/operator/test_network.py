"""Who may talk to a job's pods, by the meaning that networking.k8s.io/v1 gives a NetworkPolicy.

The nodes of the tests enforce no policies, so the objects are judged by an evaluator of what they may contain here; that
a real API server stores them as they are written is tested in test_life.py.
"""

import ipaddress
from dataclasses import dataclass, field

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.operator.fakes import IMAGE, job
from unfreeze_api.contracts.progress import HTTP_PORT
from unfreeze_operator.cluster import connection
from unfreeze_operator.main import main
from unfreeze_operator.manifests.children import network_policy
from unfreeze_operator.objects.resources import GangNames
from unfreeze_operator.settings.network import DNS, EgressRule, Network, Peer, parse

NAMES = GangNames.of("job")

HOME = "unfreeze-system"
MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
NETWORK = Network(HOME, (Peer.model_validate(MONITORING),))


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod, or an address outside of the cluster."""

    namespace: str = ""
    labels: dict = field(default_factory=dict)
    ip: str = "10.0.0.1"


def selects(selector, labels):
    assert set(selector) <= {"matchLabels"}, "the evaluator knows no more"
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def is_peer(peer, other, home):
    if "ipBlock" in peer:
        return ipaddress.ip_address(other.ip) in ipaddress.ip_network(peer["ipBlock"]["cidr"])
    spaces, pods = peer.get("namespaceSelector"), peer.get("podSelector")
    if not other.namespace:
        return False
    here = other.namespace == home if spaces is None else selects(spaces, {NAME: other.namespace})
    return here and (pods is None or selects(pods, other.labels))


NAME = "kubernetes.io/metadata.name"


def allows(policy, direction, other, port, protocol="TCP"):
    """Whether a pod that the policy selects may talk with another end; `direction` is ingress or egress."""
    spec = policy["spec"]
    assert direction.capitalize() in spec["policyTypes"], "not isolated at all"
    side = {"ingress": "from", "egress": "to"}[direction]
    for rule in spec[direction]:
        known = [one for one in rule.get("ports", [{}]) if one.get("protocol", protocol) == protocol]
        if not any(one.get("port", port) == port for one in known):
            continue
        if side not in rule or any(is_peer(peer, other, policy["metadata"]["namespace"]) for peer in rule[side]):
            return True
    return False


def policy(network=NETWORK, name="job"):
    return network_policy(job(name=name), network)


def member(name="job", **labels):
    gang = {"app.kubernetes.io/managed-by": "unfreeze-operator", "unfreeze.dev/job-name": name}
    return End("ns", {**labels, **gang})


OPERATOR = End(HOME, {"app.kubernetes.io/name": "unfreeze-operator"})
PROMETHEUS = End("monitoring", {"app.kubernetes.io/name": "prometheus"})
COREDNS = End("kube-system", {"k8s-app": "kube-dns"})
PORTS = st.integers(1, 65535)
ENDS = st.builds(
    End,
    st.sampled_from(["ns", "other", HOME, "monitoring", "kube-system", ""]),
    st.fixed_dictionaries(
        {},
        optional={
            "app.kubernetes.io/managed-by": st.sampled_from(["unfreeze-operator", "helm"]),
            "app.kubernetes.io/name": st.sampled_from(["unfreeze-operator", "prometheus"]),
            "unfreeze.dev/job-name": st.sampled_from(["job", "job-2"]),
            "k8s-app": st.just("kube-dns"),
        },
    ),
    st.sampled_from(["10.0.0.1", "8.8.8.8", "169.254.20.10", "169.254.169.254"]),
)


@given(PORTS, st.sampled_from(["TCP", "UDP", "SCTP"]), st.sampled_from(["ingress", "egress"]))
def test_the_gang_talks_among_itself_on_any_port(port, protocol, direction):
    assert allows(policy(), direction, member(team="a"), port, protocol)


@pytest.mark.slow
@settings(max_examples=500)
@given(ENDS, PORTS | st.just(HTTP_PORT), st.sampled_from(["TCP", "UDP"]))
def test_nobody_else_comes_in_but_who_reads_the_metrics(other, port, protocol):
    gang = other.namespace == "ns" and member().labels.items() <= other.labels.items()
    operator = other.namespace == HOME and OPERATOR.labels.items() <= other.labels.items()
    reads = (port, protocol) == (HTTP_PORT, "TCP") and (operator or other.namespace == "monitoring")
    assert allows(policy(), "ingress", other, port, protocol) == (gang or reads)


@pytest.mark.slow
@settings(max_examples=500)
@given(ENDS, PORTS | st.just(53), st.sampled_from(["TCP", "UDP", "SCTP"]))
def test_nothing_goes_out_but_dns(other, port, protocol):
    gang = other.namespace == "ns" and member().labels.items() <= other.labels.items()
    server = (other.namespace == "kube-system" and "k8s-app" in other.labels) or other.ip == "169.254.20.10"
    dns = port == 53 and protocol != "SCTP" and server
    assert allows(policy(), "egress", other, port, protocol) == (gang or dns)


def test_another_jobs_gang_is_a_stranger():
    assert not allows(policy(name="a"), "ingress", member("b"), 29500)
    assert not allows(policy(name="a"), "egress", member("b"), 29500)


def test_the_cloud_metadata_server_is_out_of_reach():
    assert not allows(policy(), "egress", End(ip="169.254.169.254"), 80)


def test_it_selects_the_pods_of_its_job_whatever_their_template_says():
    from tests.operator.fakes import FakeCluster
    from unfreeze_operator.manifests.children import indexed_job
    from unfreeze_operator.objects.carried import Carried

    view = job()
    context = FakeCluster().context(view)
    stolen = {"app.kubernetes.io/managed-by": "me", "unfreeze.dev/job-name": "other", "team": "a"}
    template = context.spec.template.model_copy(update={"labels": stolen})
    spec = context.spec.model_copy(update={"template": template})
    labels = indexed_job(view, spec, IMAGE, Carried(), NAMES)["spec"]["template"]["metadata"]["labels"]
    assert selects(policy()["spec"]["podSelector"], labels)
    assert labels["team"] == "a"


def test_an_operator_outside_of_the_cluster_opens_the_metrics_port_alone():
    outside = policy(Network("", NETWORK.metrics_from))
    assert allows(outside, "ingress", End(ip="192.0.2.1"), HTTP_PORT)
    assert not allows(outside, "ingress", End(ip="192.0.2.1"), 29500)


def test_egress_rules_of_the_platform_take_the_place_of_dns():
    rules = parse(EgressRule, '[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]}]')
    open_to_web = policy(Network(HOME, (), rules))
    assert allows(open_to_web, "egress", End(ip="8.8.8.8"), 443)
    assert not allows(open_to_web, "egress", End(ip="8.8.8.8"), 80)
    assert not allows(open_to_web, "egress", COREDNS, 53)
    assert allows(policy(Network(HOME, (), parse(EgressRule, "[{}]"))), "egress", End(ip="8.8.8.8"), 80)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (Peer, "{", "Invalid JSON"),
        (Peer, '{"podSelector": {}}', "valid array"),
        (Peer, '[{"podselector": {}}]', "0.podselector: Extra inputs are not permitted"),
        (Peer, '[{"ipBlock": {"cidr": "10.0.0.0/99"}}]', "0.ipBlock.cidr"),
        (EgressRule, '[{"to": []}]', "at least 1 item"),
        (EgressRule, '[{"ports": [{"port": 0}]}]', "0.ports.0.port"),
    ],
)
def test_options_that_are_no_policy_are_refused(kind, text, words):
    with pytest.raises(ValueError) as caught:
        parse(kind, text)
    assert words in str(caught.value)


def test_the_command_line_says_which_option_is_wrong():
    result = CliRunner().invoke(main, ["--trainer-image=i", "--metrics-from=[1]"])
    assert result.exit_code == 2
    assert "--metrics-from" in result.stderr


def test_the_defaults_are_written_as_the_api_server_stores_them():
    assert policy()["spec"]["egress"][1]["ports"] == [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]
    assert Network().egress == (DNS,)


def test_the_own_namespace_is_the_service_accounts(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "SERVICE_ACCOUNT", tmp_path)
    assert connection.own_namespace() == ""
    (tmp_path / "namespace").write_text("unfreeze-system")
    assert connection.own_namespace() == "unfreeze-system"
