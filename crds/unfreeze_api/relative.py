"""Relative paths in a manifest: on this machine they count from the manifest's folder. A cluster takes none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

PLACES = (
    ("model", "source"),
    ("model", "candidates", "source"),
    ("model", "towers", "source"),
    ("data", "train", "source"),
    ("data", "validation", "source"),
    ("data", "test", "source"),
    ("evidence", "forgetting", "anchor", "source"),
    ("stages", "textEncoder"),
    ("stages", "data", "train", "source"),
    ("stages", "data", "validation", "source"),
    ("sources", "featureCache", "destination"),
    ("output", "destination"),
)
"""Fields of the spec that say where something lies; of a list those of each item."""


def absolute(manifest: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a manifest whose relative paths, `words.csv` or `file://words.csv`, are file:///PATH.

    Parameters
    ----------
    manifest
        As it stands in a file; what has another form than a path is left for the validation.
    folder
        That paths count from.
    """
    spec = manifest.get("spec")
    if not isinstance(spec, dict):
        return manifest
    for place in PLACES:
        spec = _with(spec, place, folder)
    return manifest | {"spec": spec}


def is_relative(source: object) -> bool:
    """Return whether a source is a path that counts from somewhere, or one without file:// in front."""
    if not isinstance(source, str) or not source:
        return False
    scheme, found, path = source.partition("://")
    return not found or (scheme == "file" and bool(path) and not path.startswith("/"))


def _with(spec: dict[str, Any], place: tuple[str, ...], folder: Path) -> dict[str, Any]:
    name, *rest = place
    value = spec.get(name)
    if rest and isinstance(value, list):
        return spec | {name: [_with(item, tuple(rest), folder) if isinstance(item, dict) else item for item in value]}
    if rest and isinstance(value, dict):
        return spec | {name: _with(value, tuple(rest), folder)}
    if rest or not is_relative(value):
        return spec
    path = os.path.normpath(folder.absolute() / str(value).removeprefix("file://"))
    return spec | {name: f"file://{path}"}
