"""Pins: hashes that say which data a run has seen."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.data.partitions import name_below
from unfreeze_trainer.data.samples import DataSource
from unfreeze_trainer.data.shards import folder_of, is_pattern, is_several, is_table_folder, shards
from unfreeze_trainer.errors import is_passing
from unfreeze_trainer.models.folders import hash_file, hash_folder_once

PINNED = "pinned"
"""Entry of a base model's pins that says which files they cover; earlier versions pinned others, and did not say."""


def pin_data(source: DataSource) -> dict[str, str]:
    """Return `sha256` of a table, or of the pictures in a folder; of a table of paths also that of its `pictures`.

    Of pictures it is the hash of their sorted relative paths and sizes: to read them would cost as much as an epoch.
    """
    path = Path(source.dataset.path)
    pictures = _hash_pictures(source, folder_of(str(path))) if source.files else ""
    if path.is_dir() and pictures and not is_table_folder(str(path)):
        return {"sha256": pictures}
    return {"sha256": _hash_table(path)} | ({"pictures": pictures} if pictures else {})


def _hash_table(path: Path) -> str:
    """Return the hash of a table; of one in several files that of their names and hashes."""
    if not is_several(str(path)):
        return hash_file(path)
    digest = hashlib.sha256()
    for file in shards(str(path), f"source {path}"):
        digest.update(f"{name_below(file, str(path))}\0{hash_file(file)}\n".encode())
    return digest.hexdigest()


def _hash_pictures(source: DataSource, folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(set(source.inputs.to_pylist())):
        digest.update(f"{os.path.relpath(file, folder)}\0{_size(file)}\n".encode())
    return digest.hexdigest()


def _size(file: str) -> int:
    """Return the bytes of a picture, -1 where it is gone and skipped (data.onError)."""
    try:
        return os.stat(file).st_size  # noqa: PTH116 - of millions
    except (OSError, ValueError) as error:
        if is_passing(error):
            raise
        return -1


def first_pins(job: ResolvedJob, pins: Mapping[str, Any]) -> dict[str, Any]:
    """Return what earlier versions pinned: of a model's folder and of one of pictures also files that are not loaded.

    Parameters
    ----------
    job
        Its sources, and where they lie.
    pins
        As this version takes them.
    """
    held_out = [part.dataset for part in (job.data.validation, job.data.test) if part and part.dataset]
    paths = {dataset.source: dataset.path for dataset in (job.data.train, *held_out)}
    data = {source: _hash_all(path) for source, path in paths.items()}
    files = {"source": job.model.source, "files": hash_folder_once(job.model.weights_path)}
    return {
        "base": files,
        "data": {
            name: {"source": split["source"], "sha256": data[split["source"]], "rows": split["rows"]}
            for name, split in pins["data"].items()
            if split["source"] in data  # no anchor
        },
    }


def _hash_all(path: str) -> str:
    if Path(path).is_file() or is_pattern(path):
        return _hash_table(Path(path))
    digest = hashlib.sha256()
    files = (Path(root, name) for root, _, names in os.walk(path, onerror=_raise) for name in names)
    for file in sorted(files):
        digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\n".encode())
    return digest.hexdigest()


def _raise(error: OSError) -> None:
    raise error  # os.walk passes over folders that it may not read
