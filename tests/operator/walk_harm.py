"""Undesired states of a job's children, and what the operator makes of each.

Every field of every child that the operator sets is changed by hand, or taken out, and each child is deleted. Which fields those are
is read from the manifests, not from a list.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.operator.walk_places import CHILDREN, Place, WalkError, differences, eventually
from tests.operator.walk_steps import Json
from tests.operator.world import spec
from unfreeze_operator.objects.resources import JOBS, GangNames, Resource, named

LABELS = ("app.kubernetes.io/managed-by", "unfreeze.dev/job-name")
"""Labels that the operator finds its children by. Pods of a Job without them are taken for those of an earlier job."""
HARMLESS = {("spec", "manualSelector")}
"""What the API server lets everybody change to no effect."""


@dataclass(frozen=True)
class Harm:
    """A change of a child by hand: a merge patch, or None for its deletion."""

    resource: Resource
    field: str
    change: Json | None

    def __str__(self) -> str:
        return f"{self.resource.kind}{f'.{self.field}' if self.field else ' deleted'}"


def harms(place: Place, name: str) -> list[Harm]:
    """Return what can be done to the children of a job that is there."""
    return [harm for resource in CHILDREN for harm in _harms(place, resource, name)]


def _harms(place: Place, resource: Resource, name: str) -> Iterator[Harm]:
    raw = place.read(resource, child_of(resource, name))
    if raw is None:
        raise WalkError(f"it has no {resource.kind}")
    yield Harm(resource, "", None)
    for part in ("spec", "data"):
        for path, value in _values(raw.get(part, {}), (part,)):
            for other in _others(value) if path not in HARMLESS else ():
                yield Harm(resource, ".".join(path), _patch(path, other))
    if resource is JOBS:
        yield Harm(resource, "spec.completions and parallelism", {"spec": {"completions": 1, "parallelism": 1}})
    for label in () if resource is JOBS else LABELS:
        yield Harm(resource, f"metadata.labels.{label}", _patch(("metadata", "labels", label), None))
    for annotation in raw["metadata"].get("annotations", {}):
        if annotation.startswith("unfreeze.dev/") and not annotation.endswith("/carried"):
            yield Harm(
                resource, f"metadata.annotations.{annotation}", _patch(("metadata", "annotations", annotation), "x")
            )


def child_of(resource: Resource, name: str) -> str:
    return GangNames.of(name).job if resource is JOBS else named(resource, name)


def _values(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield values and lists with their paths; the template of a Job is Kubernetes' to keep."""
    for key, value in node.items():
        if path == ("spec",) and key == "template":
            continue
        if isinstance(value, dict) and value:
            yield from _values(value, (*path, key))
        else:
            yield (*path, key), value


def _others(value: Any) -> Iterator[Any]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
        yield None
    elif isinstance(value, str):
        yield value + "x"
        yield None
    elif isinstance(value, list):
        yield []
        yield None


def _patch(path: tuple[str, ...], value: Any) -> Json:
    change: Any = value
    for name in reversed(path):
        change = {name: change}
    return copy.deepcopy(change)


def undo(place: Place, name: str, harm: Harm, seconds: float) -> str:
    """Do a harm and wait until everything is as before; return Refused where the API server does not let it be done.

    Raises
    ------
    WalkError
        When it is not mended in time.
    """
    before, child = place.state(name), child_of(harm.resource, name)
    path = place.path(harm.resource, child)
    if harm.change is None:
        code, _ = place.cluster.request("DELETE", path, {"propagationPolicy": "Background"})
    else:
        code, _ = place.cluster.request("PATCH", path, harm.change)
    if code >= 400:
        return "Refused"
    eventually(lambda: not list(differences(place.state(name), before)), f"{harm} is mended", seconds)
    return "Mended"


def harm_all(
    place: Place,
    tell: Callable[[str], object],
    seconds: float,
    chosen: Callable[[list[Harm]], list[Harm]] = lambda found: found,
    name: str = "harmed",
) -> dict[str, str]:
    """Do one harm to a job after the other and return what became of each: Mended, Refused, or what is wrong.

    Parameters
    ----------
    tell
        Is told of each.
    seconds
        How long each may take to be mended.
    chosen
        Chooses those that are done.
    """
    body = spec(name, nodes=2)
    place.create(name, body)
    eventually(lambda: place.told(name)["seen"] and len(place.pods(name)) == 2, "its pods are there", seconds)
    found = {}
    for number, harm in enumerate(chosen(harms(place, name))):
        kind = ""
        try:
            kind = undo(place, name, harm, seconds)
        except WalkError as error:
            kind = f"wrong: {error}"
        found[f"{number} {harm} {json.dumps(harm.change)[-60:]}"] = kind
        tell(f"{harm} {json.dumps(harm.change)[-60:]}: {kind}")
    return found
