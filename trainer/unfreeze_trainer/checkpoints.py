"""Checkpoints of a run: what training changes, written aside and renamed, with a manifest of sizes and hashes.

A checkpoint holds the weights that any phase so far trained, buffers, moments by name and the position. Frozen weights
are a reference to the pinned base. Random generators are not in it: a step's randomness is a function of its number
(see `seeds`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from unfreeze_api.progress import CheckpointInfo
from unfreeze_trainer.engines.base import OptimizerState
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.state import State

log = logging.getLogger(__name__)

FORMAT = 1
_WEIGHTS, _MOMENTS, _STATE, _MANIFEST = "weights.safetensors", "moments.safetensors", "state.json", "manifest.json"
_SEPARATOR = "|"


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds."""

    state: State
    weights: dict[str, Tensor]
    """Parameters and persistent buffers by name."""
    moments: OptimizerState


@dataclass(frozen=True)
class Identity:
    """Whom a run folder belongs to."""

    fingerprint: str
    """Of the job, see `ResolvedJob.fingerprint`."""
    pins: Mapping[str, Any]
    """Hashes of data and base model."""

    def require(self, other: Mapping[str, Any], folder: Path) -> None:
        """Raise JobError unless a manifest or report belongs to this job on this data."""
        if other.get("fingerprint") != self.fingerprint:
            raise JobError(
                "ForeignRunFolder",
                f"{folder} belongs to another job (fingerprint {other.get('fingerprint')}, this job has"
                f" {self.fingerprint}): model, data, strategy or training differ. Choose another output.destination,"
                " or delete that folder",
            )
        theirs, ours = json.loads(json.dumps(other.get("pins", {}))), json.loads(json.dumps(dict(self.pins)))
        if theirs != ours:
            changed = sorted(key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))
            raise JobError(
                "DataChanged",
                f"{folder} was trained on other files: {', '.join(changed)} changed since. Restore them, choose another"
                " output.destination, or delete that folder",
            )


class Checkpoints:
    """The folder `checkpoints/` of a run. One rank writes; any rank may read."""

    def __init__(self, run_folder: Path, identity: Identity, *, keep: int) -> None:
        self.folder = run_folder / "checkpoints"
        self.identity, self._keep = identity, keep

    def save(self, snapshot: Snapshot, *, also_keep: int | None) -> CheckpointInfo:
        """Write `step-N/` so that it is whole or not there, then delete old ones but for step `also_keep`."""
        state = snapshot.state
        final = self.folder / f"step-{state.step}"
        aside = self.folder / f".writing-{state.step}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        save_file(
            {name: tensor.detach().contiguous().cpu() for name, tensor in snapshot.weights.items()}, aside / _WEIGHTS
        )
        flat = {
            f"{name}{_SEPARATOR}{key}": tensor.detach().contiguous().cpu()
            for name, entry in snapshot.moments.items()
            for key, tensor in entry.items()
        }
        save_file(flat, aside / _MOMENTS)
        (aside / _STATE).write_text(state.model_dump_json())
        readable(aside)
        time = datetime.now(UTC)
        manifest = {
            "format": FORMAT,
            "step": state.step,
            "time": time.isoformat(),
            "fingerprint": self.identity.fingerprint,
            "pins": dict(self.identity.pins),
            "files": {name: _seal(aside / name) for name in (_WEIGHTS, _MOMENTS, _STATE)},
        }
        (aside / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        _seal(aside / _MANIFEST)
        _sync_folder(aside)
        if final.exists():  # a broken one, or the same step before it was evaluated
            replaced = self.folder / f".replaced-{state.step}"
            shutil.rmtree(replaced, ignore_errors=True)
            final.replace(replaced)
        aside.replace(final)
        _sync_folder(self.folder)
        self._prune({state.step, also_keep})
        return CheckpointInfo(step=state.step, time=time)

    def _prune(self, wanted: set[int | None]) -> None:
        steps = self.steps()
        for step in steps[self._keep :]:
            if step not in wanted:
                shutil.rmtree(self.folder / f"step-{step}", ignore_errors=True)
        for leftover in [*self.folder.glob(".writing-*"), *self.folder.glob(".replaced-*")]:
            shutil.rmtree(leftover, ignore_errors=True)

    def steps(self) -> list[int]:
        """Return the steps that there are checkpoints of, newest first, broken ones included."""
        names = [path.name.removeprefix("step-") for path in self.folder.glob("step-*")]
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def newest(self) -> tuple[CheckpointInfo | None, list[str]]:
        """Return the newest whole checkpoint, and what is wrong with each newer one.

        Raises
        ------
        JobError
            The folder belongs to another job, or data or base model have changed since.
        """
        problems: list[str] = []
        for step in self.steps():
            try:
                return self.check(step), problems
            except BrokenCheckpointError as error:
                problems.append(str(error))
        return None, problems

    def check(self, step: int) -> CheckpointInfo:
        """Compare every file of a checkpoint with its manifest; raise BrokenCheckpointError with what is wrong."""
        folder = self.folder / f"step-{step}"
        try:
            manifest = json.loads((folder / _MANIFEST).read_bytes())
            files, time = manifest["files"], datetime.fromisoformat(manifest["time"])
        except (OSError, ValueError, KeyError) as error:
            raise BrokenCheckpointError(f"{folder.name}: its manifest cannot be read ({error})") from error
        self.identity.require(manifest, self.folder.parent)
        for name, sealed in files.items():
            try:
                size, digest = (folder / name).stat().st_size, _digest(folder / name)
            except OSError as error:
                raise BrokenCheckpointError(f"{folder.name}: {name} cannot be read ({error})") from error
            if size != sealed["size"] or digest != sealed["sha256"]:
                raise BrokenCheckpointError(
                    f"{folder.name}: {name} is not what was written ({size} of {sealed['size']} bytes)"
                )
        return CheckpointInfo(step=step, time=time)

    def load(self, step: int) -> Snapshot:
        """Read a checkpoint that `newest` or `check` found whole."""
        folder = self.folder / f"step-{step}"
        moments: dict[str, dict[str, Tensor]] = {}
        for key, tensor in load_file(folder / _MOMENTS).items():
            name, _, entry = key.rpartition(_SEPARATOR)
            moments.setdefault(name, {})[entry] = tensor
        state = State.model_validate_json((folder / _STATE).read_bytes())
        return Snapshot(state, load_file(folder / _WEIGHTS), moments)

    def load_weights(self, step: int) -> dict[str, Tensor]:
        """Read the weights alone."""
        return load_file(self.folder / f"step-{step}" / _WEIGHTS)


class BrokenCheckpointError(Exception):
    """A checkpoint that is not what was written."""


def readable(folder: Path) -> None:
    """Give every file of a folder the mode that the umask allows: safetensors writes for the owner alone.

    What one user writes to a shared volume, another reads: a model that is served, a pod with another user that goes on.
    """
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~mask)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(path: Path) -> dict[str, Any]:
    """Flush a file to the disk, return its size and hash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return {"size": path.stat().st_size, "sha256": _digest(path)}


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
