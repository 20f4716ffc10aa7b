"""What becomes of checkpoints on the disk: one is written whole or not at all, old ones go, after a success most or all."""

from __future__ import annotations

from unfreeze_api.contracts.progress import CheckpointInfo
from unfreeze_trainer.runs.checkpoints import Checkpoints, Snapshot
from unfreeze_trainer.runs.generation import Generation
from unfreeze_trainer.runs.state import RunState


def write(checkpoints: Checkpoints, snapshot: Snapshot, generation: Generation) -> CheckpointInfo:
    """Write a checkpoint so that it is whole or not there."""
    step = snapshot.state.step
    with generation.fenced():
        aside = generation.aside(f"step-{step}")
        info = checkpoints.write(snapshot, aside, generation=generation.number)
        generation.commit(aside, checkpoints.path(step))
    return info


def prune(checkpoints: Checkpoints, state: RunState, generation: Generation, *, keep: int) -> None:
    """Delete all checkpoints of this run but the newest ones, that of the best evaluation and those to go back to."""
    kept = {state.sound_step, state.begin_step, state.best.step if state.best else 0}
    kept |= {rung.best.step for rung in state.rungs}
    for step in checkpoints.own_steps()[keep:]:
        if step not in kept:
            generation.discard(checkpoints.path(step))


def clear(checkpoints: Checkpoints, policy: str, *, best: int, generation: Generation) -> list[int]:
    """Delete this run's checkpoints after its success; return their steps.

    Parameters
    ----------
    policy
        Delete, KeepBest or Keep, as `training.checkpoint.afterSuccess`.
    best
        Step of the best evaluation.
    """
    if policy == "Keep":
        return []
    if policy == "Delete":
        checkpoints.close(generation)
    steps = [step for step in checkpoints.own_steps() if policy == "Delete" or step != best]
    for step in steps:
        generation.discard(checkpoints.path(step))
    return steps
