"""FineTuneJob as a whole, as the API server stores it: metadata, spec and status."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_api.grammar.model import Model
from unfreeze_api.spec.job import FineTuneJobSpec


class Metadata(Model):
    """Metadata of an object: what is read here, and whatever else Kubernetes writes."""

    model_config = ConfigDict(extra="allow")

    name: str = ""
    """Name of the job; empty in a manifest that leaves it to the API server (generateName)."""
    namespace: str = "default"
    """Namespace of the job."""
    uid: str = ""
    """Identity of the stored object."""
    generation: int = 0
    """Counts the changes of the spec."""
    labels: dict[str, str] = Field(default={})
    """Labels of the job."""
    annotations: dict[str, str] = Field(default={})
    """Annotations of the job."""


class FineTuneJob(Model):
    """A job that adapts a pretrained model to a task."""

    api_version: Literal["unfreeze.dev/v1alpha1"] = "unfreeze.dev/v1alpha1"
    """Group and version."""
    kind: Literal["FineTuneJob"] = "FineTuneJob"
    """Kind."""
    metadata: Metadata
    """Metadata."""
    spec: FineTuneJobSpec
    """What is trained."""
    status: FineTuneJobStatus | None = None
    """What became of it."""


def parse_spec(raw: dict[str, Any]) -> FineTuneJobSpec:
    """Return the spec of an object that the API server has validated; no rule is evaluated again.

    Raises
    ------
    pydantic.ValidationError
        When the object was stored under another version of the schema.
    """
    return FineTuneJobSpec.model_validate(raw)


def known_part(raw: dict[str, Any], error: ValidationError) -> FineTuneJobSpec | None:
    """Return what is known of a spec that `parse_spec` refuses; None when more is wrong than fields that are not known.

    The CRD is upgraded before the operator: what only a newer one knows is no reason to give up a job that has begun.
    """
    if any(item["type"] != "extra_forbidden" for item in error.errors()):
        return None
    return FineTuneJobSpec.model_validate(raw, extra="ignore")
