"""What a plan asks for: create, patch or delete one object. Data only; the executor calls the API."""

from __future__ import annotations

from dataclasses import dataclass

from unfreeze_operator.resources import Manifest, Resource
from unfreeze_operator.views import View


@dataclass(frozen=True, slots=True)
class Create:
    """Create an object."""

    resource: Resource
    manifest: Manifest


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


Action = Create | Patch | Delete
