"""rollbacks.json of a run folder: when its training went back, and from what it must not resume any more."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

from unfreeze_api.contracts.report import Rollback
from unfreeze_trainer.runs.checkpoints import Checkpoints
from unfreeze_trainer.runs.generation import Generation

log = logging.getLogger(__name__)

FILE = "rollbacks.json"


class _Written(BaseModel):
    """rollbacks.json."""

    fingerprint: str
    """Of the run."""
    rollbacks: list[Rollback]


def read_rollbacks(run_folder: Path, fingerprint: str) -> list[Rollback]:
    """Return those of a run, none where its folder has none."""
    try:
        found = _Written.model_validate_json((run_folder / FILE).read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        log.warning("%s cannot be read: what the newest checkpoint knows of counts: %s", run_folder / FILE, error)
        return []
    return found.rollbacks if found.fingerprint == fingerprint else []


def write_rollbacks(run_folder: Path, fingerprint: str, rollbacks: Sequence[Rollback], generation: Generation) -> None:
    """Write them whole or not at all."""
    aside = generation.aside(FILE)
    aside.write_text(_Written(fingerprint=fingerprint, rollbacks=list(rollbacks)).model_dump_json(indent=1) + "\n")
    generation.commit(aside, run_folder / FILE)


def discard_undone(checkpoints: Checkpoints, rollbacks: Sequence[Rollback], generation: Generation) -> None:
    """Delete the checkpoints that were written after the step that the newest rollback went to, and before it.

    What cannot be read stays, for whoever looks for broken ones.
    """
    for step in checkpoints.own_steps() if rollbacks else ():
        with suppress(OSError, ValueError):
            if step > rollbacks[-1].to and len(checkpoints.load_state(step).rollbacks) < len(rollbacks):
                generation.discard(checkpoints.path(step))
