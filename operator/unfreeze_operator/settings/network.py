"""Whom the pods of a job may talk to, as the spec of a NetworkPolicy. Pure.

The gang talks among itself on any port, since collectives choose theirs. The metrics port is open to the operator and to
whom the operator's options name. Out go DNS and the gang alone: data and models lie on volumes, which the node mounts.
What else may be reached is the platform's to say and never the job's: policies add up, so that a job could otherwise let
itself out of a namespace that is closed by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from unfreeze_api.contracts.progress import HTTP_PORT
from unfreeze_api.grammar.model import Model
from unfreeze_api.grammar.selectors import LabelSelector
from unfreeze_operator.objects.resources import OPERATOR_LABELS, Manifest

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""Every namespace carries it, with its own name as the value."""


def _cidr(text: str) -> str:
    ip_network(text)
    return text


Cidr = Annotated[str, AfterValidator(_cidr)]


class IpBlock(Model):
    """Addresses."""

    cidr: Cidr
    """Like 10.0.0.0/8."""
    except_: list[Cidr] | None = Field(default=None, alias="except", min_length=1)
    """Ranges within it that are left out."""


class Peer(Model):
    """Pods, namespaces or addresses (networking.k8s.io/v1 NetworkPolicyPeer)."""

    namespace_selector: LabelSelector | None = None
    """Namespaces by their labels."""
    pod_selector: LabelSelector | None = None
    """Pods by their labels."""
    ip_block: IpBlock | None = None
    """Addresses."""


class Port(Model):
    """One port, or a range of them (networking.k8s.io/v1 NetworkPolicyPort)."""

    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    """Protocol."""
    port: Annotated[int, Field(ge=1, le=65535)] | str | None = None
    """Number, or name of a container's port; none for all."""
    end_port: int | None = Field(default=None, ge=1, le=65535)
    """Last port of the range."""


class EgressRule(Model):
    """Something that may be reached (networking.k8s.io/v1 NetworkPolicyEgressRule)."""

    to: list[Peer] | None = Field(default=None, min_length=1)
    """Whom; none for anybody."""
    ports: list[Port] | None = Field(default=None, min_length=1)
    """On which ports; none for all."""


# The label is that of kube-dns and CoreDNS in all common distributions; the address is NodeLocal DNSCache's.
DNS = EgressRule(
    to=[
        Peer(
            namespace_selector=LabelSelector(match_labels={NAMESPACE_LABEL: "kube-system"}),
            pod_selector=LabelSelector(match_labels={"k8s-app": "kube-dns"}),
        ),
        Peer(ip_block=IpBlock(cidr="169.254.20.10/32")),
    ],
    ports=[Port(protocol="UDP", port=53), Port(protocol="TCP", port=53)],
)


@dataclass(frozen=True, slots=True)
class Network:
    """What the person who runs the operator says about it."""

    operator_namespace: str = ""
    """Namespace of the operator's pod; empty when it runs outside of the cluster, where no policy could name it: the
    metrics port is open to all then."""
    metrics_from: tuple[Peer, ...] = ()
    """Who may read the trainers' metrics beside the operator: Prometheus."""
    egress: tuple[EgressRule, ...] = (DNS,)
    """What trainers may reach beside their gang."""


ISOLATED = Network()
"""Nothing but the gang, DNS and the metrics port."""


def parse(kind: type[Peer | EgressRule], text: str) -> tuple[Any, ...]:
    """Read a JSON list of peers or rules.

    Raises
    ------
    ValueError
        With everything that is wrong, by path.
    """
    try:
        return tuple(TypeAdapter(list[kind]).validate_json(text))  # type: ignore[valid-type]
    except ValidationError as error:
        causes = (f"{'.'.join(map(str, cause['loc'])) or 'value'}: {cause['msg']}" for cause in error.errors())
        raise ValueError("; ".join(causes)) from None


def policy_spec(gang: dict[str, str], network: Network, opened: Sequence[EgressRule] = ()) -> Manifest:
    """Return the spec of the NetworkPolicy of a gang, in the form that the API server stores.

    Parameters
    ----------
    gang
        Labels by which its pods are selected.
    network
        Whom they may talk to beside each other.
    opened
        What they may reach besides, for what they read.
    """
    members = {"podSelector": {"matchLabels": gang}}
    metrics: Manifest = {"ports": [{"protocol": "TCP", "port": HTTP_PORT}]}
    if network.operator_namespace:
        metrics["from"] = [_operator(network.operator_namespace), *(_wire(peer) for peer in network.metrics_from)]
    return {
        "podSelector": {"matchLabels": gang},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [members]}, metrics],
        "egress": [{"to": [members]}, *(_wire(rule) for rule in (*network.egress, *opened))],
    }


def _operator(namespace: str) -> Manifest:
    return {
        "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: namespace}},
        "podSelector": {"matchLabels": OPERATOR_LABELS},
    }


def _wire(part: Model) -> Manifest:
    return part.model_dump(mode="json", by_alias=True, exclude_none=True)
