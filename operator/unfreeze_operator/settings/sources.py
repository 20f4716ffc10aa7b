"""Sources that jobs may read over the network: by scheme, where, and what that opens. Nothing unless the platform says so.

NetworkPolicies know no host names. Where a mirror or a proxy stands before the hub, name it in `egress`; else every public address
can be reached on port 443, by the pods of jobs with such a source alone, and no private one: neither the cluster's nor that of
a cloud's metadata server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from pydantic import Field, TypeAdapter, ValidationError

from unfreeze_api.grammar.fields import Name
from unfreeze_api.grammar.model import Model
from unfreeze_api.resolve import images, schemes
from unfreeze_api.sources import ACCESS, needs
from unfreeze_api.spec.job import FineTuneJobSpec
from unfreeze_operator.settings.network import EgressRule, IpBlock, Peer, Port

PUBLIC = EgressRule(
    to=[
        Peer(
            ip_block=IpBlock(
                cidr="0.0.0.0/0",
                except_=[
                    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
                    *("192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
                ],
            )
        ),
        # 2000::/3 has all that is public; the rest are translations of IPv4, among it private ones.
        Peer(ip_block=IpBlock(cidr="2000::/3", except_=["2001::/32", "2002::/16"])),
    ],
    ports=[Port(port=443)],
)
"""Every public address, on the port of HTTPS."""


class SourceAccess(Model):
    """How jobs may use a scheme."""

    endpoint: str | None = Field(default=None, pattern=r"^https?://[^\s/@]+(/[^\s@]*)?$", max_length=1024)
    """Where the hub, its mirror or the store is; none for the client's own default."""
    insecure: bool = False
    """Whether credentials may go to an endpoint without TLS, where the network can read them."""
    cache_claim: Name | None = None
    """Volume claim of each namespace that keeps what jobs fetch, where a job names none."""
    offline: bool = False
    """Whether jobs use only what the cache has, and reach nothing for it."""
    egress: list[EgressRule] | None = None
    """What may be reached for it; none for PUBLIC."""

    @property
    def opened(self) -> list[EgressRule]:
        """What may be reached for it."""
        return [PUBLIC] if self.egress is None else self.egress


SCHEMES = (*ACCESS, "oci")
"""What the platform may open."""
Sources = Mapping[str, SourceAccess]
"""By scheme; what is not among them is not allowed."""
NOTHING: Sources = MappingProxyType({})


def parse_sources(text: str) -> dict[str, SourceAccess]:
    """Read a JSON object of schemes.

    Raises
    ------
    ValueError
        With everything that is wrong, by path.
    """
    try:
        found = TypeAdapter(dict[str, SourceAccess]).validate_json(text)
    except ValidationError as error:
        causes = (f"{'.'.join(map(str, cause['loc'])) or 'value'}: {cause['msg']}" for cause in error.errors())
        raise ValueError("; ".join(causes)) from None
    if unknown := sorted(set(found) - set(SCHEMES)):
        raise ValueError(f"{unknown[0]}: there is no such scheme; there are {', '.join(SCHEMES)}")
    return found


def opened(spec: FineTuneJobSpec, sources: Sources) -> list[EgressRule]:
    """Return what the sources of a job open for it."""
    offline = offline_schemes(spec, sources)
    used = (scheme for scheme in schemes(spec) if scheme in sources and scheme not in offline)
    return [rule for scheme in used for rule in sources[scheme].opened]


def offline_schemes(spec: FineTuneJobSpec, sources: Sources) -> list[str]:
    """Return the schemes of a job of which only what the cache has is used."""
    everything = bool(spec.sources and spec.sources.offline)
    return [scheme for scheme in schemes(spec) if everything or (scheme in sources and sources[scheme].offline)]


def cache_claim(spec: FineTuneJobSpec, sources: Sources) -> str | None:
    """Return the volume claim that keeps what a job fetches, None where each pod fetches for itself."""
    if spec.sources and spec.sources.cache_claim:
        return spec.sources.cache_claim
    claims = (sources[scheme].cache_claim for scheme in schemes(spec) if scheme in sources)
    return next(filter(None, claims), None)


def claim_objections(spec: FineTuneJobSpec, sources: Sources) -> Iterator[str]:
    """Yield what a job would write on a claim that other jobs read what they have fetched from."""
    shared = {place.cache_claim for place in sources.values() if place.cache_claim}
    if schemes(spec) and (own := cache_claim(spec, sources)):
        shared.add(own)
    written = {"output.destination": spec.output.destination}
    if spec.feature_cache:
        written["sources.featureCache.destination"] = spec.feature_cache.destination
    for field, claim in (
        (field, claim) for field, one in written.items() for claim in needs(one).claims if claim in shared
    ):
        yield (
            f"{field} lies on the claim {claim}, which keeps what jobs fetch and is read-only to them: name another one"
        )


def source_objections(spec: FineTuneJobSpec, sources: Sources) -> Iterator[str]:
    """Yield what a job reads over the network and must not, or how it must not."""
    given = {variable.name for variable in spec.template.env or ()}
    for scheme in [*schemes(spec), *(["oci"] if images(spec) else ())]:
        if scheme not in sources:
            yield (
                f"sources of {scheme}:// are not opened on this cluster: whoever runs the operator sets"
                f" trainer.sources.{scheme} of the chart, or copy model and data to a claim (pvc://)"
            )
            continue
        if scheme not in ACCESS:
            continue
        access, place = ACCESS[scheme], sources[scheme]
        offline = scheme in offline_schemes(spec, sources)
        if offline and cache_claim(spec, sources) is None:
            yield (
                f"sources of {scheme}:// are taken from a cache alone (sources.offline, or trainer.sources.{scheme}.offline of the"
                " chart), and there is none: name the claim that has them in sources.cacheClaim"
            )
        for name in filter(given.__contains__, (access.endpoint, *access.elsewhere)):
            yield f"template.env {name}: where {scheme}:// leads is the platform's to say (trainer.sources.{scheme}.endpoint)"
        if not (spec.sources and spec.sources.secret_ref):
            continue
        for name in filter(given.__contains__, access.credentials):
            yield (
                f"template.env {name}: the keys of {scheme}:// are those of the Secret in sources.secretRef, and one of another"
                " account would lead the others there: put it into the Secret, or leave secretRef out"
            )
        if (place.endpoint or "").startswith("http://") and not place.insecure and not offline:
            yield (
                f"sources.secretRef: the endpoint of {scheme}:// on this cluster has no TLS, and credentials would be read on their"
                f" way: whoever runs the operator gives it TLS, or sets trainer.sources.{scheme}.insecure of the chart"
            )
