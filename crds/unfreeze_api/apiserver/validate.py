"""Judges a manifest as the API server would: the same schema, the same rules, the same words.

The order is the API server's: unknown fields; metadata, types and bounds; then the rules, unless a required field is
missing or a type is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from unfreeze_api.apiserver import structural
from unfreeze_api.apiserver.errors import BLOCKING, RULES_SKIPPED, Cause, invalid
from unfreeze_api.apiserver.likely import likeliest
from unfreeze_api.apiserver.metadata import FIELDS, check_metadata, malformed
from unfreeze_api.contracts.names import API_VERSION, KIND
from unfreeze_api.generate.crd import schema
from unfreeze_api.grammar import former
from unfreeze_api.job import FineTuneJob
from unfreeze_api.relative import is_relative
from unfreeze_api.sources import MALFORMED
from unfreeze_api.spec.job import FineTuneJobSpec


class InvalidManifest(ValueError):  # noqa: N818 - it says more than an Error behind it
    """A manifest that the API server would refuse.

    Attributes
    ----------
    causes
        Everything that is wrong with it.
    """

    def __init__(self, name: str, causes: list[Cause]) -> None:
        self.causes = causes
        super().__init__(f'{KIND} "{name}" is invalid: ' + "; ".join(map(str, causes)))


def load_job(manifest: dict[str, Any]) -> FineTuneJob:
    """Return the job of a manifest, with the defaults of the schema.

    Raises
    ------
    InvalidManifest
        With everything that is wrong.
    """
    if causes := validate(manifest):
        raise InvalidManifest(name_of(manifest), causes)
    return FineTuneJob.model_validate({key: value for key, value in defaulted(manifest).items() if key != "status"})


def validate(manifest: dict[str, Any], old: dict[str, Any] | None = None) -> list[Cause]:
    """Return everything that is wrong with a manifest; nothing when the API server would take it.

    Parameters
    ----------
    manifest
        A FineTuneJob as it stands in a file.
    old
        The stored job that it would replace: rules about updates are judged too.
    """
    if fatal := _unreadable(manifest):
        return [fatal]
    job = defaulted(manifest)
    causes = [
        *check_metadata(job.get("metadata") or {}),
        *structural.check(job, _schema()),
        *structural.check_lists(job, _schema()),
    ]
    if any(cause.reason in BLOCKING for cause in causes):
        return [*causes, RULES_SKIPPED]
    # CEL's library takes longer to import than everything before takes to run.
    from unfreeze_api.apiserver.cel import evaluate

    return [*causes, *evaluate(job, defaulted(old) if old else None, _schema())]


def defaulted(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest as the API server would store it: without nulls and status, with defaults."""
    given = {key: value for key, value in manifest.items() if key != "status"}
    given = structural.decoded(given)
    job = structural.with_defaults(structural.without_nulls(given, _schema()), _schema())
    metadata = job.get("metadata")
    if isinstance(metadata, dict) and metadata.get("generateName") and not metadata.get("name"):
        job["metadata"] = metadata | {"name": metadata["generateName"] + "xxxxx"}
    return job


def name_of(manifest: dict[str, Any]) -> str:
    """Return the name of a manifest for messages, whatever it looks like."""
    metadata = manifest.get("metadata")
    names = metadata if isinstance(metadata, dict) else {}
    return str(names.get("name") or names.get("generateName") or "")


def warnings(manifest: dict[str, Any]) -> list[str]:
    """Return what is out of date in a manifest, though the API server takes it: fields under their former names."""
    spec = manifest.get("spec")
    return former.warnings(spec, FineTuneJobSpec) if isinstance(spec, dict) else []


@cache
def _schema() -> structural.Schema:
    return schema()


def hints(manifest: dict[str, Any], causes: Iterable[Cause] = ()) -> list[str]:
    """Return the fields that there are beside each unknown one, and what may be meant by it or by an unknown value."""
    lines: dict[str, None] = {}
    for cause in causes:
        if cause.message.endswith(MALFORMED) and is_relative(json.loads(_TEXT.findall(cause.message)[0])):
            lines[
                "relative paths are for this machine: `unfreeze run`, `unfreeze phases`, `unfreeze validate --claims`"
            ] = None
        if cause.message.startswith('Unsupported value: "'):
            value, *known = (json.loads(text) for text in _TEXT.findall(cause.message))
            if meant := likeliest(value, known):
                lines[f"{cause.field}: did you mean {meant}?"] = None
    for path in _unknown(manifest):
        parent, _, name = path.rpartition(".")
        node = _schema()
        for key in re.findall(r"[^.\[\]]+", parent):
            node = node.get("items", {}) if key.isdecimal() else node.get("properties", {}).get(key, {})
        if fields := [name for name, field in node.get("properties", {}).items() if not former.is_deprecated(field)]:
            meant = likeliest(name, fields)
            asked = f"; did you mean {meant}?" if meant else ""
            lines[f"{parent or 'a manifest'} has {', '.join(fields)}{asked}"] = None
    return list(lines)


_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
"""A text in quotes, as the API server's messages have it."""


def _unknown(manifest: dict[str, Any]) -> list[str]:
    body = {key: value for key, value in manifest.items() if key != "metadata"}
    return sorted(structural.unknown_fields(body, _schema()))


def _unreadable(manifest: dict[str, Any]) -> Cause | None:
    """Return why the API server would not even look at the fields."""
    try:
        structural.decoded(manifest)
    except ValueError as error:
        return Cause("", str(error), "BadRequest")
    for field, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if manifest.get(field) != wanted:
            return invalid(field, manifest.get(field) or "", f"must be {wanted}")
    metadata = manifest.get("metadata", {})
    if message := malformed(metadata):
        return Cause("", message, "BadRequest")
    if unknown := [*sorted(f"metadata.{key}" for key in metadata or {} if key not in FIELDS), *_unknown(manifest)]:
        names = ", ".join(f'unknown field "{path}"' for path in unknown)
        return Cause("", f"strict decoding error: {names}", "BadRequest")
    return None
