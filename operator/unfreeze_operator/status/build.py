"""The status of a job from what is there: children, progress, termination messages, the old status. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal

from unfreeze_api.contracts.progress import Progress
from unfreeze_api.contracts.reasons import CheckpointBrokenReason, RunningReason
from unfreeze_api.contracts.status import (
    Condition,
    Failure,
    FineTuneJobStatus,
    HistoryPoint,
    JobPhase,
    Nodes,
    Restarts,
    WaitingPod,
)
from unfreeze_operator.objects.carried import accelerator_seconds, pod_restarts
from unfreeze_operator.objects.views import FineTuneJobView, JobCondition
from unfreeze_operator.objects.waiting import MAX_WAITING
from unfreeze_operator.observed.context import Context
from unfreeze_operator.observed.failure import first_failed, job_failure, pod_failure
from unfreeze_operator.status.budget import MAX_MESSAGE_BYTES, clipped, within_budget
from unfreeze_operator.status.conditions import Conditions
from unfreeze_operator.status.cost import cost_of
from unfreeze_operator.status.history import extended
from unfreeze_operator.status.said import missing_pods, set_conditions, set_useful
from unfreeze_operator.status.times import account
from unfreeze_operator.status.training import Training, at_rest, earlier_leaders, gather, leader, summarize

SETTLE_SECONDS = 30
"""How long the end of a Job waits for what its pods say of it: the two come by different watches, and one may lag."""
_MAX_WARNINGS = 16
ACCOUNT_SECONDS = 60
"""How often the accelerator seconds of a job are written when nothing else changes."""


def observe(
    context: Context, progress: Progress | None = None, *, waiting: str = "", given_up: Failure | None = None
) -> FineTuneJobStatus:
    """Return the status of a job that has not finished yet.

    Parameters
    ----------
    context
        The job, its children and the time.
    progress
        What the leader said last about the training.
    waiting
        What the job's children cannot be made for, if anything.
    given_up
        Why the operator ends the job now, if it does.
    """
    old, children = context.status, context.children
    last = leader(children.pods) or leader(children.departed)
    training = gather(old, last, progress, earlier_leaders((*children.departed, *children.pods), last))
    end = _end(context)
    phase = "Failed" if given_up else _phase(context, end)
    failure = given_up or _failure(context, end, phase)
    if phase not in ("Running", "Pending"):
        training = replace(training, progress=at_rest(training.progress))
    completed = _completion_time(context, end, given_up)
    conditions = Conditions(old.conditions, context.now, context.job.generation)
    set_conditions(conditions, context, phase, failure, waiting=waiting, outcome=training.outcome)
    if recovery := training.recovery:
        reason: CheckpointBrokenReason = "WentBack" if recovery.step else "StartedOver"
        conditions.set_once("CheckpointBroken", reason, clipped(recovery.message, MAX_MESSAGE_BYTES))
    if phase == "Succeeded":
        set_useful(conditions, training.results)
    held = _accelerator_seconds(context)
    status = FineTuneJobStatus(
        observed_generation=context.job.generation,
        phase=phase,
        conditions=conditions.all(),
        start_time=old.start_time or min((pod.created for pod in children.pods), default=None),
        completion_time=completed,
        waiting=_waiting_pods(context) if phase in ("Pending", "Running") else [],
        nodes=Nodes(desired=context.spec.distribution.num_nodes, ready=sum(pod.ready for pod in children.live_pods)),
        progress=training.progress,
        history=extended(_history(old, training), training.progress, context.spec.metric.name),
        checkpoint=training.checkpoint,
        restarts=_restarts(context, training),
        phases=training.phases,
        results=training.results,
        decisions=training.decisions,
        omitted=training.omitted,
        state_seconds=account(context, phase, progress, completed),
        accelerator_seconds=held,
        cost=cost_of(context, held, training.progress if phase == "Running" else None),
        failure=failure,
        warnings=list(context.warnings[:_MAX_WARNINGS]),
        summary=summarize(training, context.spec.metric.name),
    )
    return within_budget(status, context.spec.metric.name)


def _history(old: FineTuneJobStatus, training: Training) -> list[HistoryPoint]:
    """Return the history so far, none where another stage has begun, whose steps are others."""
    before, now = old.progress, training.progress
    return old.history if before is None or now is None or before.stage == now.stage else []


def next_look(context: Context, status: FineTuneJobStatus) -> float | None:
    """Return after how many seconds the status may differ without any event."""
    job = context.children.job
    if job is not None and job.ended and status.completion_time is None:
        return 1.0
    waits = [float(ACCOUNT_SECONDS)] if context.accelerators and context.children.live_pods else []
    times = [what.since(pod.created) for pod, what in context.children.waits()]
    if missing := missing_pods(context):
        times.append(missing[1])
    waits += [(time - context.now).total_seconds() for time in times if time > context.now]
    return min(waits, default=None)


def worth_writing(old: FineTuneJobStatus, new: FineTuneJobStatus, accelerators: int) -> bool:
    """Whether anything changed; the accelerators' clock alone counts only now and then."""
    if old == new:
        return False
    if old != new.model_copy(update={"accelerator_seconds": old.accelerator_seconds, "cost": old.cost}):
        return True
    grown = (new.accelerator_seconds or 0) - (old.accelerator_seconds or 0)
    return old.accelerator_seconds is None or grown >= ACCOUNT_SECONDS * accelerators


def urgent(old: FineTuneJobStatus, new: FineTuneJobStatus) -> bool:
    """Whether a change of a running job's status is written at once; what else its trainers say waits for its turn."""

    def marks(status: FineTuneJobStatus) -> tuple[object, ...]:
        # Messages do not count, nor how a checkpoint is broken: trainers word these.
        found = [
            (one.type, one.status, one.observed_generation, one.reason if one.type != "CheckpointBroken" else "")
            for one in status.conditions
        ]
        # A pod that failed and is gone left no other word of its failure.
        return status.phase, status.failure, status.restarts and status.restarts.pods, found

    return marks(old) != marks(new)


def _end(context: Context) -> JobCondition | None:
    """Return the condition that ended the Job, once the termination messages of its pods are in too."""
    job = context.children.job
    end = job.condition("Complete", "Failed") if job is not None else None
    if end is None:
        return None
    explained = not context.children.live_pods and _explained(end, context)
    return end if explained or context.now >= end.time + timedelta(seconds=SETTLE_SECONDS) else None


def _explained(end: JobCondition, context: Context) -> bool:
    """Whether the pods that are known show how their Job ended: the newest ones may not be known yet."""
    if end.reason == "DeadlineExceeded":
        return True
    pods = (*context.children.pods, *context.children.departed)
    if end.type == "Complete":
        return any(pod.index == 0 and (pod.phase == "Succeeded" or pod.exit_code == 0) for pod in pods)
    return context.status.failure is not None or any(pod.phase == "Failed" for pod in pods)


def _completion_time(context: Context, end: JobCondition | None, given_up: Failure | None) -> datetime | None:
    if given_up is not None:
        return context.now.replace(microsecond=0)
    if end is None:
        return None
    job, spent = context.children.job, context.status.state_seconds
    told = (job and job.completed) or end.time
    # The end may be heard of late, or be before the last change of state by another clock: the seconds add up all the same.
    return told if spent is None else max(told, spent.since)


def _phase(context: Context, end: JobCondition | None) -> JobPhase:
    job, children, old = context.children.job, context.children, context.status.phase
    if end is not None:
        return "Succeeded" if end.type == "Complete" else "Failed"
    # A gang that was preempted as a whole begins anew, whenever the scheduler has room for it.
    starting: JobPhase = "Running" if old == "Running" and not children.gang_waits else "Pending"
    if context.spec.run_policy.suspend:
        # The pods hold their nodes until they have written a checkpoint: not suspended before that.
        stopping = children.live_pods or (job is not None and (not job.suspended or job.active))
        return starting if stopping else "Suspended"
    if job is None or job.suspended:
        return "Queued" if job is not None and context.job.queue else "Pending"
    if context.children.running >= context.spec.distribution.num_nodes:
        return "Running"
    # Between a pod's failure and its replacement's start the job continues; its condition tells.
    return starting if job.active or job.ending or children.live_pods else "Pending"


def _waiting_pods(context: Context) -> list[WaitingPod]:
    waits = context.children.waiting(context.now)[:MAX_WAITING]
    return [WaitingPod(pod=name, reason=what.reason, message=what.message[:1024]) for name, what in waits]


def _failure(context: Context, end: JobCondition | None, phase: JobPhase) -> Failure | None:
    if phase == "Succeeded":
        return None
    if phase == "Failed" and end is not None:
        return job_failure(end, context.children.pods, context.status.failure)
    pod = first_failed(context.children.pods)
    if pod is not None:
        return pod_failure(pod)
    known = context.status.failure
    return known if known is not None and known.pod is not None else None


def _restarts(context: Context, training: Training) -> Restarts:
    old = context.status.restarts or Restarts()
    carried = context.carried
    return Restarts(
        in_place=max(old.in_place, carried.in_place_restarts + training.in_place_restarts),
        pods=max(old.pods, carried.pod_restarts + pod_restarts(context.children.job, context.children.pods)),
    )


def _accelerator_seconds(context: Context) -> int | None:
    old = context.status.accelerator_seconds
    if not context.accelerators:
        return old
    held = accelerator_seconds(context.children.pods, context.accelerators, context.now)
    return max(old or 0, context.carried.accelerator_seconds + held)


RefusedReason = Literal["InvalidSpec", "Refused", "SourceNotAllowed"]


def refused(
    job: FineTuneJobView, old: FineTuneJobStatus, now: datetime, reason: RefusedReason, message: str
) -> FineTuneJobStatus:
    """Return the status of a job whose spec, or whose children, cannot be accepted; a newer spec can mend it."""
    conditions = Conditions(old.conditions, now, job.generation)
    conditions.set_running("Failed", False, reason, message)
    conditions.set_failed(reason, message)
    status = old.model_copy(
        update={
            "observed_generation": job.generation,
            "phase": "Failed",
            "conditions": conditions.all(),
            "failure": Failure(reason=reason, message=message[:4096]),
        }
    )
    return within_budget(status)


def held(
    job: FineTuneJobView, old: FineTuneJobStatus, now: datetime, reason: RunningReason, message: str
) -> FineTuneJobStatus:
    """Return the status of a job that has not begun, and that another operator may begin: it has no phase yet."""
    conditions = Conditions(old.conditions, now, job.generation)
    conditions.set_running("Pending", False, reason, message)
    status = old.model_copy(update={"observed_generation": job.generation, "conditions": conditions.all()})
    return within_budget(status)


def delayed(
    status: FineTuneJobStatus,
    now: datetime,
    reason: RunningReason,
    message: str,
    *,
    old: FineTuneJobStatus | None = None,
) -> FineTuneJobStatus:
    """Return a status that says why the job's children could not be brought up to date this time.

    Parameters
    ----------
    old
        As it was written last: what it said already is not new.
    """
    said = [found for found in (old.conditions if old else ()) if found.type in ("Running", "Reconciling")]
    before = [next((one for one in said if one.type == found.type), found) for found in status.conditions]
    conditions = Conditions(before, now, status.observed_generation or 0)
    conditions.set_running(status.phase or "Pending", False, reason, message)
    return within_budget(status.model_copy(update={"conditions": conditions.all()}))


def condition(status: FineTuneJobStatus, type_: str) -> Condition | None:
    """Return one condition of a status."""
    return next((found for found in status.conditions if found.type == type_), None)
