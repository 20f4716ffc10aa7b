"""job.json as a trainer reads it, of an operator that may be older or newer. Pure."""

from __future__ import annotations

import json
from typing import Literal, get_args

from pydantic import ValidationError
from pydantic_core import from_json

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.grammar.reading import causes, field_path

VERSIONS: tuple[int, ...] = get_args(ResolvedJob.model_fields["schema_version"].annotation)
"""Values of schemaVersion that are read."""


class JobFileError(ValueError):
    """A job.json that no other try makes better.

    Parameters
    ----------
    reason
        That of the trainer's end.
    message
        What is wrong, for people.
    """

    def __init__(self, reason: Literal["UnsupportedJobFile", "InvalidJob"], message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_job(text: str | bytes) -> ResolvedJob:
    """Return the job in a job.json; fields that this version does not know are ignored, see `ignored_fields`.

    An operator raises schemaVersion where a trainer that ignored a field would train something else, so it is looked at
    before all else.

    Raises
    ------
    JobFileError
        UnsupportedJobFile: its schemaVersion is another one. InvalidJob: it is no job.json, or its fields are wrong.
    """
    try:
        raw = from_json(text)
    except ValueError as error:
        raise JobFileError("InvalidJob", f"not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise JobFileError("InvalidJob", "not a JSON object")
    version = raw.get("schemaVersion", 1)
    if type(version) is not int or version not in VERSIONS:
        raise JobFileError(
            "UnsupportedJobFile",
            f"it has schemaVersion {json.dumps(version)}, and this version of Unfreeze reads {' and '.join(map(str, VERSIONS))}:"
            " operator and trainer image do not belong together. Set the trainer image that belongs to the operator, in"
            " spec.template.image or by the operator's --trainer-image",
        )
    try:
        return ResolvedJob.read(text)
    except ValidationError as error:
        raise JobFileError("InvalidJob", causes(error)) from error


def ignored_fields(text: str | bytes) -> list[str]:
    """Return the paths of the fields of a readable job.json that `read_job` ignores."""
    try:
        ResolvedJob.model_validate_json(text)
    except ValidationError as error:
        return [field_path(item["loc"]) for item in error.errors() if item["type"] == "extra_forbidden"]
    return []
