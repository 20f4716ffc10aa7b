"""The gang as the scheduler sees it: a PodGroup, where the server has them. Pure.

Kubernetes 1.37 has them behind a gate. A pod whose PodGroup is missing, or has too few pods, is Pending without a condition and
without an event: what it waits for has to be read from the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from sys import intern

from unfreeze_operator.objects.resources import SPEC_HASH_ANNOTATION, Manifest
from unfreeze_operator.objects.views import ChildView, PodView, child_fields
from unfreeze_operator.objects.waiting import Waiting

SCHEDULED = "PodGroupInitiallyScheduled"
"""Condition of a PodGroup: false while no place is found for it; once true it stays so, whatever becomes of its pods."""


@dataclass(frozen=True, slots=True)
class PodGroupView(ChildView):
    """A child PodGroup."""

    min_count: int
    """How many of its pods find a node at once, those that have one included, or none of them does."""
    message: str
    """Why none has, in the scheduler's words; nothing where it has not said so."""
    spec_hash: str = ""
    """Of the spec that it was made from, as its Job's; nothing where that is not known."""


def pod_group_view(raw: Manifest) -> PodGroupView:
    """Return the view of a PodGroup."""
    conditions = raw.get("status", {}).get("conditions", ())
    words = (c.get("message", "") for c in conditions if (c["type"], c["status"]) == (SCHEDULED, "False"))
    gang = raw["spec"].get("schedulingPolicy", {}).get("gang", {})
    annotations = raw["metadata"].get("annotations") or {}
    return PodGroupView(
        **child_fields(raw),
        min_count=gang.get("minCount", 0),
        message=next(words, ""),
        spec_hash=intern(annotations.get(SPEC_HASH_ANNOTATION, "")),
    )


def without_a_word(name: str, group: PodGroupView | None, pods: Sequence[PodView]) -> Waiting | None:
    """Return what a pod waits for of which the scheduler says nothing.

    Parameters
    ----------
    name
        Of the PodGroup that it is in.
    group
        The group; None where there is none.
    pods
        Those of the group that have not ended.
    """
    if group is None:
        return Waiting("PodGroupMissing", f"PodGroup {name} does not exist, and the scheduler waits for it")
    if len(pods) < group.min_count:
        return Waiting("PodGroupIncomplete", f"PodGroup {name} waits for {group.min_count} pods, {len(pods)} are there")
    return Waiting("Unschedulable", group.message) if group.message else None
