"""Checkpoints of a run: what training changes, written aside and renamed, with a manifest of sizes and hashes.

A checkpoint holds the weights that any phase so far trained, buffers, moments by name and the position. Frozen weights
are a reference to the pinned base. Random generators are not in it: a step's randomness is a function of its number
(see `seeds`). docs/checkpoints.md describes the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from unfreeze_api.contracts.progress import CheckpointInfo
from unfreeze_trainer.data.pins import PINNED
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.folders import hash_file
from unfreeze_trainer.runs.generation import Generation
from unfreeze_trainer.runs.state import RunState

FORMAT = 1
_WEIGHTS, _MOMENTS, _STATE, _MANIFEST = "weights.safetensors", "moments.safetensors", "state.json", "manifest.json"
_FILES = (_WEIGHTS, _MOMENTS, _STATE)
_SEPARATOR = "|"
_END = {"format": "2, of a run that is finished"}
"""Manifest that trainers of the first release refuse; of step 0, which no checkpoint has. See `Checkpoints.close`."""


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds."""

    state: RunState
    weights: dict[str, Tensor]
    """Parameters and persistent buffers by name."""
    moments: Mapping[str, Mapping[str, Tensor]]
    """Of the optimizer, by name of the parameter: {"head.weight": {"exp_avg": ..., "step": ...}}."""


@dataclass(frozen=True)
class Identity:
    """Whom a run folder belongs to."""

    fingerprint: str
    """Of the job, see `ResolvedJob.fingerprint`."""
    pins: Mapping[str, Any]
    """Hashes of data and base model."""
    first_pins: Callable[[], Mapping[str, Any]] | None = None
    """Computes those that earlier versions took, which cover other files."""

    def seen(self, *kinds: str) -> str:
        """Return a hash of recipe and pins, of data, or of data and base: until something is trained the folder takes others."""
        said = self.fingerprint, *(self.pins.get(kind) for kind in kinds)
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def require(self, other: Mapping[str, Any], folder: Path) -> None:
        """Raise JobError unless a manifest or report belongs to this job on this data."""
        if other.get("fingerprint") != self.fingerprint:
            raise JobError(
                "ForeignRunFolder",
                f"{folder} belongs to another job (fingerprint {other.get('fingerprint')}, this job has"
                f" {self.fingerprint}): model, data, strategy or training differ. Choose another output.destination,"
                " or delete that folder",
            )
        theirs, ours = _hashes(other.get("pins", {})), _hashes(self.pins)
        if self.first_pins and PINNED in ours.get("base", {}) and PINNED not in theirs.get("base", {}):
            ours = _hashes(self.first_pins())
        if theirs != ours:
            changed = sorted(key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))
            raise JobError(
                "DataChanged",
                f"{folder} was trained on other files: {', '.join(changed)} changed since. Restore them, choose another"
                " output.destination, or delete that folder",
            )


def _hashes(pins: Mapping[str, Any]) -> dict[str, Any]:
    """Return pins as JSON has them, without the name of a revision: the hashes of its files say more."""
    read: dict[str, Any] = json.loads(json.dumps(dict(pins)))
    read.get("base", {}).pop("revision", None)
    return read


class Seal(BaseModel):
    """What a file was when it was written."""

    size: int
    sha256: str


class Manifest(BaseModel):
    """manifest.json of a checkpoint; it is written last."""

    format: int = FORMAT
    step: int
    time: datetime
    generation: int = 0
    """Of the pods that wrote it, see `generation`."""
    fingerprint: str
    pins: dict[str, Any]
    files: dict[str, Seal]


class BrokenCheckpointError(Exception):
    """A checkpoint that is not what was written."""


class Checkpoints:
    """The folder `checkpoints/` of a run, and what each `step-N` in it must look like.

    Parameters
    ----------
    run_folder
        May be missing: then there are no checkpoints.
    identity
        Whose checkpoints count as whole.
    """

    def __init__(self, run_folder: Path, identity: Identity) -> None:
        self.folder, self._identity = run_folder / "checkpoints", identity

    def path(self, step: int) -> Path:
        """Return the folder of a step's checkpoint."""
        return self.folder / f"step-{step}"

    def steps(self) -> list[int]:
        """Return the steps that there are checkpoints of, newest first, broken ones included."""
        names = [path.name.removeprefix("step-") for path in self.folder.glob("step-*")]
        return sorted((int(name) for name in names if name.isdecimal() and int(name)), reverse=True)

    def own_steps(self) -> list[int]:
        """Return the steps of the checkpoints whose manifest names this run, newest first."""
        return [step for step in self.steps() if self._names_this_run(self.path(step))]

    def _names_this_run(self, folder: Path) -> bool:
        try:
            return self._manifest(folder).fingerprint == self._identity.fingerprint
        except (BrokenCheckpointError, JobError):
            return False

    def close(self, generation: Generation) -> None:
        """Keep trainers of the first release out of a finished run: they do not read its report, and would train again."""
        with generation.fenced():
            aside = generation.aside("step-0")
            aside.mkdir()
            (aside / _MANIFEST).write_text(json.dumps(_END) + "\n")
            generation.commit(aside, self.path(0))

    def write(self, snapshot: Snapshot, folder: Path, *, generation: int) -> CheckpointInfo:
        """Write a checkpoint's files into a folder that is not there yet."""
        folder.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in snapshot.weights.items()}, folder / _WEIGHTS)
        flat = {
            f"{name}{_SEPARATOR}{key}": tensor.contiguous()
            for name, entry in snapshot.moments.items()
            for key, tensor in entry.items()
        }
        save_file(flat, folder / _MOMENTS)
        (folder / _STATE).write_text(snapshot.state.model_dump_json())
        readable(folder)
        manifest = Manifest(
            step=snapshot.state.step,
            time=datetime.now(UTC),
            generation=generation,
            fingerprint=self._identity.fingerprint,
            pins=dict(self._identity.pins),
            files={name: _seal(folder / name) for name in _FILES},
        )
        (folder / _MANIFEST).write_text(manifest.model_dump_json(indent=1))
        return CheckpointInfo(step=manifest.step, time=manifest.time)

    def check(self, step: int) -> CheckpointInfo:
        """Compare every file of a checkpoint with its manifest.

        Raises
        ------
        BrokenCheckpointError
            Something is missing or is not what was written.
        JobError
            It belongs to another job, to other data or to another version of this program.
        """
        folder = self.path(step)
        manifest = self._manifest(folder)
        self._identity.require(manifest.model_dump(mode="json"), self.folder.parent)
        if manifest.step != step:
            raise BrokenCheckpointError(f"{folder.name}: its manifest is that of step {manifest.step}")
        for name in _FILES:
            where = f"{folder.name}: {name}"
            try:
                size, digest = (folder / name).stat().st_size, hash_file(folder / name)
            except OSError as error:
                raise BrokenCheckpointError(f"{where} cannot be read ({error.strerror})") from error
            sealed = manifest.files.get(name)
            if sealed is None or size != sealed.size:
                raise BrokenCheckpointError(f"{where} has {size} bytes of {sealed.size if sealed else 0}")
            if digest != sealed.sha256:
                raise BrokenCheckpointError(f"{where} is not what was written: its SHA-256 differs")
        return CheckpointInfo(step=step, time=manifest.time)

    def _manifest(self, folder: Path) -> Manifest:
        try:
            found = json.loads((folder / _MANIFEST).read_bytes())
            version = found["format"]
            if version == FORMAT:
                return Manifest.model_validate(found)
        except OSError as error:
            raise BrokenCheckpointError(f"{folder.name}: {_MANIFEST} cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise BrokenCheckpointError(f"{folder.name}: {_MANIFEST} is no manifest") from error
        raise JobError(
            "ForeignRunFolder",
            f"{folder} has format {version}, and this version of Unfreeze reads format {FORMAT}: resume with the version"
            " that wrote it, or choose another output.destination",
        )

    def load(self, step: int) -> Snapshot:
        """Read a checkpoint that `check` found whole."""
        moments: dict[str, dict[str, Tensor]] = {}
        for key, tensor in load_file(self.path(step) / _MOMENTS).items():
            name, _, entry = key.rpartition(_SEPARATOR)
            moments.setdefault(name, {})[entry] = tensor
        return Snapshot(self.load_state(step), self.load_weights(step), moments)

    def load_state(self, step: int) -> RunState:
        """Read the position alone."""
        return RunState.model_validate_json((self.path(step) / _STATE).read_bytes(), extra="ignore")

    def load_weights(self, step: int) -> dict[str, Tensor]:
        """Read the weights alone."""
        return load_file(self.path(step) / _WEIGHTS)


def readable(folder: Path) -> None:
    """Give every file of a folder the mode that the umask allows: safetensors writes for the owner alone.

    What one user writes to a shared volume, another reads: a model that is served, a pod with another user that resumes.
    """
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~mask)


def _seal(path: Path) -> Seal:
    """Return a file's size and hash."""
    return Seal(size=path.stat().st_size, sha256=hash_file(path))
