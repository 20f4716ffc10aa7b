"""Where a job's time goes: which state it is in, and the seconds of each so far. Pure."""

from __future__ import annotations

from datetime import datetime

from unfreeze_api.contracts.progress import Progress
from unfreeze_api.contracts.status import AT_WORK, JobPhase, JobState, StateSeconds
from unfreeze_operator.observed.context import Context

_OF_PHASE: dict[JobPhase, JobState | None] = {
    "Pending": "Pending",
    "Queued": "Queued",
    "Suspended": "Suspended",
    "Succeeded": None,
    "Failed": None,
}


def account(context: Context, phase: JobPhase, progress: Progress | None, ended: datetime | None) -> StateSeconds:
    """Return the seconds of each state; the same as before when the state is.

    Parameters
    ----------
    phase
        The job's phase now.
    progress
        What the leader at hand said last.
    ended
        When the job ended, if it did.
    """
    old = context.status.state_seconds or StateSeconds(state="Pending", since=context.job.created)
    state = _state(context, phase, progress, old.state)
    if state == old.state or old.state is None:
        return old
    now = max(old.since, (ended or context.now).replace(microsecond=0))
    field = old.state.lower()
    total = getattr(old, field) + int((now - old.since).total_seconds())
    return old.model_copy(update={"state": state, "since": now, field: total})


def _state(context: Context, phase: JobPhase, progress: Progress | None, old: JobState | None) -> JobState | None:
    if phase != "Running":
        return _OF_PHASE[phase]
    known = old if old in AT_WORK else "Starting"
    if context.at_work >= context.spec.distribution.num_nodes and not context.silent:
        if progress is None:  # nobody has asked the leader yet, as after a start of the operator
            return known
        if progress.activity != "Starting":
            return "Training"
    return "Starting" if known == "Starting" else "Recovering"
