"""What a plan asks for: create, patch or delete one object. Data only; the executor calls the API."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from unfreeze_api.contracts.reasons import PodReason
from unfreeze_operator.objects.resources import JOBS, Manifest, Resource
from unfreeze_operator.objects.views import PodView, View


@dataclass(frozen=True, slots=True)
class Create:
    """Create an object."""

    resource: Resource
    manifest: Manifest
    optional: bool = False
    """Whether the job can do without it, where the server refuses it."""


@dataclass(frozen=True, slots=True)
class Patch:
    """Merge a change into an object, if it is still the one that was seen."""

    resource: Resource
    view: View
    change: Manifest


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an object, if it is still the one that was seen."""

    resource: Resource
    view: View
    last: bool = False
    """Whether the object stays until everything that it owns is gone."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """Declare a pod that nobody will ever report on to have failed, and delete it at once, if it is still that one."""

    view: PodView
    reason: PodReason
    """For the pod's status."""
    message: str
    """For people."""


Action = Create | Patch | Delete | Abandon


def steps(actions: Iterable[Action]) -> list[list[Action]]:
    """Divide actions into those that follow one another; what a Job's pods need is made at the same time, and before it."""
    numbered = enumerate(actions)
    together = groupby(numbered, lambda item: -1 if _is_needed_by_pods(item[1]) else item[0])
    return [[action for _, action in step] for _, step in together]


def _is_needed_by_pods(action: Action) -> bool:
    return isinstance(action, Create) and action.resource != JOBS
