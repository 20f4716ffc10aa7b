"""plan(): a job and its children at a moment -> what to do and what to say about it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from unfreeze_api.contracts.progress import Progress
from unfreeze_api.contracts.status import Failure, FineTuneJobStatus
from unfreeze_operator.objects.actions import Action
from unfreeze_operator.observed.context import Context, Verdict
from unfreeze_operator.policies import ORDER, RESTRAINING, name
from unfreeze_operator.policies.finished import is_finished
from unfreeze_operator.status.budget import within_budget
from unfreeze_operator.status.build import RefusedReason, next_look, observe, refused

RETRY_SECONDS = 30.0
"""After how long a job is looked at again of which a part has raised an error."""

STATUS = "status"
PARTS: tuple[str, ...] = (*(name(policy) for policy in ORDER), STATUS)


@dataclass(frozen=True, slots=True)
class Problem:
    """A part of the plan that raised an error; the others stand."""

    part: str
    """One of PARTS."""
    error: Exception


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about a job."""

    actions: tuple[Action, ...]
    status: FineTuneJobStatus | None
    """What to write when it differs from what stands there; None leaves it alone."""
    requeue_after: float | None
    """Seconds after which to look again without any event."""
    problems: tuple[Problem, ...] = ()


def plan(context: Context, progress: Progress | None = None) -> Plan:
    """Ask every policy in turn and gather what they want.

    A policy that raises an error keeps nobody else from speaking who ends, stops or takes away; what would make or
    start something waits, since nobody knows what that policy would have ruled out.

    Parameters
    ----------
    context
        The job, its children and the time.
    progress
        What the job's leader said last about its training.
    """
    actions: list[Action] = []
    waits: list[float] = []
    problems: list[Problem] = []
    waiting = ""
    not_allowed: Verdict | None = None
    failure: Failure | None = None
    for verdict in _verdicts(context, problems):
        actions += verdict.actions
        if verdict.requeue_after is not None:
            waits.append(verdict.requeue_after)
        if verdict.reason == "WaitingForDeletion":
            waiting = verdict.message
        elif verdict.reason in ("Refused", "SourceNotAllowed"):
            not_allowed = verdict
        failure = failure or verdict.failure
    if context.job.deleting:
        return Plan((), None, None, tuple(problems))
    if is_finished(context.status):
        status: FineTuneJobStatus | None = _acknowledged(context)
    elif not_allowed:
        reason: RefusedReason = "SourceNotAllowed" if not_allowed.reason == "SourceNotAllowed" else "Refused"
        status = refused(context.job, context.status, context.now, reason, not_allowed.message)
    else:
        status = _observed(context, progress, waiting, failure, problems)
        look = next_look(context, status) if status is not None else None
        if look is not None:
            waits.append(look)
    if problems:
        waits.append(RETRY_SECONDS)
    return Plan(tuple(actions), status, min(waits, default=None), tuple(problems))


def _verdicts(context: Context, problems: list[Problem]) -> Iterator[Verdict]:
    for check in ORDER:
        if problems and check not in RESTRAINING:
            continue
        try:
            verdict = check(context)
        except Exception as error:  # noqa: BLE001 - whatever it is, the job must still end, and go when it is time
            problems.append(Problem(name(check), error))
            continue
        if verdict is not None:
            yield verdict
            if verdict.stop:
                return


def _observed(
    context: Context, progress: Progress | None, waiting: str, failure: Failure | None, problems: list[Problem]
) -> FineTuneJobStatus | None:
    """Return the status; without the words of the trainers, if it cannot be made of them, so that the job ends at least."""
    for speechless in (False, True):
        try:
            seen, reported = (_speechless(context), None) if speechless else (context, progress)
            return observe(seen, reported, waiting=waiting, given_up=failure)
        except Exception as error:  # noqa: BLE001 - as above
            problems.append(Problem(STATUS, error))
    return None


def _speechless(context: Context) -> Context:
    children = context.children
    pods = tuple(replace(pod, message="") for pod in children.pods)
    return replace(context, children=replace(children, pods=pods, departed=()))


def _acknowledged(context: Context) -> FineTuneJobStatus:
    """Return a finished job's status with the spec's generation, so that clients know that it was seen."""
    if context.status.observed_generation == context.job.generation:
        return context.status
    return within_budget(context.status.model_copy(update={"observed_generation": context.job.generation}))
