"""What an export holds, by hash: written with it, and compared whenever somebody asks whether it is still the same."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze_trainer.models.folders import hash_file
from unfreeze_trainer.runs.destination import MARKER

MAX_FILES = 10_000
"""Files of an export; its own are a dozen."""


class SealError(Exception):
    """A folder that cannot be compared with anything, in words for people."""


@dataclass(frozen=True)
class Differences:
    """How a folder differs from the export that was written, by names of files."""

    changed: list[str]
    missing: list[str]
    added: list[str]
    files: int
    """That the export was written with."""

    def __bool__(self) -> bool:
        return bool(self.changed or self.missing or self.added)


def seal(export: Path, *, fingerprint: str, kind: str, found: Mapping[str, Any] | None = None) -> None:
    """Say in an export which run has made it, and what is in it: {"fingerprint": ..., "kind": ..., "files": {name: SHA-256}}.

    `found` is what validation data say of how to use it, for which the libraries have no place: temperature, thresholds.
    """
    files = {name: hash_file(export / name) for name in _names(export)}
    (export / MARKER).write_text(
        json.dumps({"fingerprint": fingerprint, "kind": kind, **(found or {}), "files": files}, indent=1) + "\n"
    )


def compare(export: Path) -> Differences:
    """Compare an export with what it was written as.

    Raises
    ------
    SealError
        It is no export, or an earlier version wrote it, which left no hashes.
    OSError
        A file cannot be read.
    """
    sealed = _sealed(export)
    found = _names(export)
    return Differences(
        changed=[name for name in found if name in sealed and not _same(export / name, sealed[name])],
        missing=sorted(sealed.keys() - set(found)),
        added=sorted(set(found) - sealed.keys()),
        files=len(sealed),
    )


def _names(export: Path) -> list[str]:
    """Return everything below a folder but the marker and folders, links as what they are, sorted."""
    names: list[str] = []
    for folder, folders, files in os.walk(export, onerror=_raise):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        names += [Path(folder, name).relative_to(export).as_posix() for name in (*files, *links)]
        if len(names) > MAX_FILES:
            raise SealError(
                f"{export} has more than {MAX_FILES:,} files: that is no export. Name the folder of one model"
            )
    return sorted(name for name in names if name != MARKER)


def _raise(error: OSError) -> None:
    raise error


def _sealed(export: Path) -> dict[str, str]:
    try:
        marker: Any = json.loads((export / MARKER).read_bytes())
    except FileNotFoundError:
        runs = [name for name in ("model", "adapter") if (export / name / MARKER).is_file()]
        advice = f": name {' or '.join(str(export / name) for name in runs)}" if runs else ""
        raise SealError(f"{export} holds no {MARKER}, and is no export of Unfreeze{advice}") from None
    except (ValueError, RecursionError):
        raise SealError(f"{export / MARKER} is not JSON: somebody has changed it") from None
    files = marker.get("files") if isinstance(marker, dict) else None
    if files is None:
        raise SealError(f"{export / MARKER} has no hashes: a version of Unfreeze before 0.2.0 wrote it")
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        raise SealError(f"{export / MARKER}: `files` is no map of names to hashes: somebody has changed it")
    return files


def _same(path: Path, digest: str) -> bool:
    return path.is_file() and not path.is_symlink() and hash_file(path) == digest
