"""What a run folder holds to resume from: the newest whole checkpoint of this job; broken ones are put aside and named."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime

from unfreeze_api.contracts.progress import CheckpointInfo, Recovery
from unfreeze_api.contracts.report import Rollback
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.runs.checkpoints import BrokenCheckpointError, Checkpoints
from unfreeze_trainer.runs.generation import Generation

log = logging.getLogger(__name__)

_MAX_LENGTH = 900
"""Characters about what is broken; a status has no room for more."""


@dataclass(frozen=True)
class Found:
    """What there is to resume from."""

    checkpoint: CheckpointInfo | None = None
    """None: the run starts from the beginning."""
    recovery: Recovery | None = None
    """What was lost, if anything."""
    best_lost: bool = False
    """Whether the checkpoint of the best evaluation so far is broken."""
    rollbacks: list[Rollback] = field(default_factory=list)
    """Of the run so far, also those that no checkpoint knows of yet."""


def find(checkpoints: Checkpoints, generation: Generation) -> Found:
    """Find the newest whole checkpoint, and put newer ones, which are broken, aside as `broken-N`.

    Raises
    ------
    JobError
        There are checkpoints, and none is this job's.
    """
    problems: dict[int, str] = {}
    checkpoint, foreign = None, None
    for step in checkpoints.steps():
        try:
            checkpoint = checkpoints.check(step)
            break
        except BrokenCheckpointError as error:
            problems[step] = str(error)
        except JobError as error:
            problems[step], foreign = f"step-{step}: {error.message}", foreign or error
    if checkpoint is None and foreign:
        raise foreign
    best_lost = False
    if checkpoint and (best := checkpoints.load_state(checkpoint.step).best) and best.step != checkpoint.step:
        try:
            checkpoints.check(best.step)
        except (BrokenCheckpointError, JobError) as error:
            best_lost, problems[best.step] = True, f"{error} (the best so far)"
    for step, problem in problems.items():
        log.error("broken checkpoint: %s", problem)
        if checkpoints.path(step).exists():
            generation.move(checkpoints.path(step), checkpoints.folder / f"broken-{step}")
    return Found(checkpoint, _recovery(checkpoint, problems), best_lost)


def _recovery(checkpoint: CheckpointInfo | None, problems: dict[int, str]) -> Recovery | None:
    if not problems:
        return None
    step = checkpoint.step if checkpoint else 0
    resumed = f"the training resumed from step {step}" if step else "the training started over from the beginning"
    said = "; ".join(problems.values())[:_MAX_LENGTH]
    return Recovery(step=step, time=datetime.now(UTC), message=f"{said}: {resumed}")
