"""plan(): a job and its children at a moment -> what to do and what to say about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from unfreeze_api.progress import Progress
from unfreeze_api.status import Failure, FineTuneJobStatus
from unfreeze_operator.actions import Action
from unfreeze_operator.budget import within_budget
from unfreeze_operator.context import Context
from unfreeze_operator.policies import ORDER
from unfreeze_operator.policies.finished import is_finished
from unfreeze_operator.status import next_look, observe


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about a job."""

    actions: tuple[Action, ...]
    status: FineTuneJobStatus | None
    """What to write when it differs from what stands there; None leaves it alone."""
    requeue_after: float | None
    """Seconds after which to look again without any event."""


def plan(context: Context, progress: Progress | None = None) -> Plan:
    """Ask every policy in turn and gather what they want.

    Parameters
    ----------
    context
        The job, its children and the time.
    progress
        What the job's leader said last about its training.
    """
    actions: list[Action] = []
    waits: list[float] = []
    waiting = ""
    failure: Failure | None = None
    for check in ORDER:
        verdict = check(context)
        if verdict is None:
            continue
        actions += verdict.actions
        if verdict.requeue_after is not None:
            waits.append(verdict.requeue_after)
        if verdict.reason == "WaitingForDeletion":
            waiting = verdict.message
        failure = failure or verdict.failure
        if verdict.stop:
            break
    if context.job.deleting:
        return Plan((), None, None)
    if is_finished(context.status):
        return Plan(tuple(actions), _acknowledged(context), min(waits, default=None))
    status = observe(context, progress, waiting=waiting, given_up=failure)
    look = next_look(context, status)
    if look is not None:
        waits.append(look)
    return Plan(tuple(actions), status, min(waits, default=None))


def _acknowledged(context: Context) -> FineTuneJobStatus:
    """Return a finished job's status with the spec's generation, so that clients know that it was seen."""
    if context.status.observed_generation == context.job.generation:
        return context.status
    return within_budget(context.status.model_copy(update={"observed_generation": context.job.generation}))
