"""Whom a run folder belongs to: a job, which keeps it from every other one for as long as it lives.

The marker, `owner.json` in the newest generation's folder, names it. It is read before the right to write (see `generation`)
is taken, so that a second job with the same destination ends itself, and not the one that trains.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError

from unfreeze_api.contracts.progress import JOB_UID_ENV
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.runs.generation import GENERATION_ENV, Generation, owner_of, pulse

log = logging.getLogger("unfreeze.owner")

BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 30.0
"""How long another owner is watched: that of a node that is gone has no pulse, one that ends takes its pulse away."""
_LOOK_SECONDS, _MISSED_BEATS, _GOODBYE_SECONDS = 0.5, 3, 2.0


class Owner(BaseModel, frozen=True):
    """A job, as `owner.json` names it."""

    uid: str = ""
    """Of the FineTuneJob; of `unfreeze run` what tells its process; empty where nobody has said it."""
    job: str
    """Namespace and name."""
    fingerprint: str = ""
    """Of the run."""

    @classmethod
    def of(cls, job: ResolvedJob, fingerprint: str, environment: Mapping[str, str] = os.environ) -> Owner:
        """Return the owner that this process is of."""
        return cls(uid=environment.get(JOB_UID_ENV, ""), job=f"{job.namespace}/{job.name}", fingerprint=fingerprint)

    def is_same(self, other: Owner) -> bool:
        """Return whether another one is this job, started again."""
        return self.uid == other.uid if self.uid and other.uid else self.job == other.job


def read_owner(run_folder: Path) -> Owner | None:
    """Return whom a run folder belongs to; None where no job has said so."""
    try:
        return Owner.model_validate_json(owner_of(run_folder) or b"")
    except ValidationError:
        return None


def require_free(run_folder: Path, owner: Owner) -> None:
    """Raise JobError ForeignRunFolder if a run folder belongs to another job that lives.

    A job that ended by itself, or on this machine, is known to be gone. One of another recipe is taken at its word; one that
    this job could resume is watched for PATIENCE_SECONDS.
    """
    theirs = read_owner(run_folder)
    if theirs is None or theirs.is_same(owner) or not _lives(run_folder, theirs, owner):
        return
    alike = "of the same recipe" if theirs.fingerprint == owner.fingerprint else "of another recipe"
    raise JobError(
        "ForeignRunFolder",
        f"{run_folder} belongs to the job {theirs.job} {alike}, which has not ended: choose another output.destination, or"
        " wait until that job has ended. If it was lost with its machine, delete that folder",
    )


def take_folder(run_folder: Path, owner: Owner) -> Generation:
    """Take the right to write to a run folder, unless another job has it that lives; say whose it is now.

    Raises
    ------
    JobError
        As of `require_free`.
    """
    require_free(run_folder, owner)
    generation = Generation.take(run_folder)
    generation.sign(owner.model_dump_json(indent=1) + "\n")
    return generation


def generation_of_worker(run_folder: Path, owner: Owner) -> Generation:
    """Return the generation that this worker's agent has taken; take it here where there is no agent.

    A worker that was started by hand, and so has no UID and no pulse, is no owner.
    """
    if GENERATION_ENV in os.environ:
        return Generation.of_worker(run_folder)
    if owner.uid:
        return take_folder(run_folder, owner)
    require_free(run_folder, owner)
    return Generation.take(run_folder)


def _lives(run_folder: Path, theirs: Owner, ours: Owner) -> bool:
    seen = pulse(run_folder)
    if seen is None or (runs := _process_runs(theirs.uid)) is False:
        return False
    if runs or theirs.fingerprint != ours.fingerprint:  # nothing there would be of use to this job
        return True
    log.warning(
        "%s belongs to the job %s: looking for %.0f s whether it lives", run_folder, theirs.job, PATIENCE_SECONDS
    )
    began = changed = time.monotonic()
    while time.monotonic() - began < PATIENCE_SECONDS:
        time.sleep(_LOOK_SECONDS)
        now = pulse(run_folder)
        if now is None:
            return False
        if now != seen:
            seen, changed = now, time.monotonic()
    return changed > began and time.monotonic() - changed < _MISSED_BEATS * BEAT_SECONDS


class Heart:
    """Beats for an owner, in a thread, until it is stopped or its generation is over."""

    def __init__(self, generation: Generation) -> None:
        self._generation, self._stopped = generation, threading.Event()
        generation.beat()
        self._thread = threading.Thread(target=self._run, name="owner", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            try:
                self._generation.beat()
            except FileNotFoundError:  # others write now
                return
            except OSError as error:  # a volume that comes back
                log.warning("the run folder cannot be written to: %s", error)

    def stop(self) -> None:
        """Let others know at once that this owner is gone."""
        self._stopped.set()
        self._thread.join(_GOODBYE_SECONDS)  # a beat that is under way would bring it back
        self._generation.rest()


def process_uid(pid: int) -> str:
    """Return what tells a process of this machine from every other one, as an owner's uid."""
    return json.dumps(["process", socket.gethostname(), pid, _started(pid)])


def _process_runs(uid: str) -> bool | None:
    """Return whether the process that an owner's uid names runs; None where this machine cannot tell."""
    try:
        kind, host, pid, started = json.loads(uid)
    except (ValueError, TypeError):
        return None
    if kind != "process" or host != socket.gethostname() or not started:
        return None
    return _started(pid) == started


def _started(pid: int) -> str:
    """Return when a process was started, in ticks since the machine was; empty where it is gone or /proc is not there."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
