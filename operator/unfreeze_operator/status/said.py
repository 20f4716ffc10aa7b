"""What the conditions of a job say: the reason and the message of each. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from unfreeze_api.contracts.reasons import RunningReason, UsefulReason
from unfreeze_api.contracts.report import GAIN_HIGH, GAIN_LOW, MAJORITY
from unfreeze_api.contracts.status import Failure, JobPhase
from unfreeze_api.grammar.amounts import figure
from unfreeze_operator.objects.waiting import PATIENCE_SECONDS, describe
from unfreeze_operator.observed.context import Context
from unfreeze_operator.observed.gangs import incomplete_since, next_try
from unfreeze_operator.status.conditions import Conditions

MISSING_SECONDS = 10
"""How long the Job controller may take to create the pods before that is worth a word."""


def set_conditions(
    conditions: Conditions, context: Context, phase: JobPhase, failure: Failure | None, *, waiting: str, outcome: str
) -> None:
    """Say by conditions what a job that has this phase is at.

    Parameters
    ----------
    failure
        The one that ended the job, or the newest one.
    waiting
        What the job's children cannot be made for, if anything.
    outcome
        What the leader said of the finished model.
    """
    desired, running = context.spec.distribution.num_nodes, context.at_work
    suspending = context.spec.run_policy.suspend and phase not in ("Suspended", "Succeeded", "Failed")
    if phase == "Running" and running >= desired and not suspending and not context.silent:
        conditions.set_running(phase, True, "PodsRunning", f"{_pods(desired)} running")
    elif suspending:
        conditions.set_running(phase, False, "Suspending", "the pods write a checkpoint and stop")
    elif phase == "Running":
        conditions.set_running(
            phase, False, *(_lost(context) or _waiting(context) or _not_made(context) or _fewer(context))
        )
    elif phase == "Pending":
        blocked: tuple[RunningReason, str] | None = ("WaitingForDeletion", waiting) if waiting else None
        idle: tuple[RunningReason, str] = ("PodsPending", "waiting for the pods to run")
        shown = blocked or _given_back(context) or _waiting(context) or _not_made(context) or idle
        conditions.set_running(phase, False, *shown)
    else:
        texts: dict[JobPhase, tuple[RunningReason, str]] = {
            "Queued": ("Queued", _queued(context)),
            "Suspended": ("Suspended", "runPolicy.suspend is true"),
            "Succeeded": ("Succeeded", "the job has succeeded"),
            "Failed": ("Failed", "the job has failed"),
        }
        conditions.set_running(phase, False, *texts[phase])
    if phase == "Suspended":
        conditions.set("Suspended", True, "Suspended", "runPolicy.suspend is true")
    elif suspending:
        conditions.set("Suspended", False, "Suspending", "the pods write a checkpoint and stop")
    else:
        conditions.clear("Suspended", "Resumed", "runPolicy.suspend is false")
    if phase == "Succeeded":
        conditions.set("Complete", True, "Succeeded", _success(conditions, outcome))
    if phase == "Failed" and failure is not None:
        conditions.set_failed(failure.reason, failure.message)
    else:
        conditions.clear("Failed", "Retrying", "the job is tried again")
        conditions.clear("Stalled", "Retrying", "the job is tried again")


def _success(conditions: Conditions, outcome: str) -> str:
    """Return what is said of a job that has succeeded; what its leader said stays when its pod is gone."""
    if outcome:
        return f"the job has succeeded. {outcome}"
    return conditions.message("Complete") or "the job has succeeded"


def set_useful(conditions: Conditions, results: Mapping[str, float]) -> None:
    """Say whether the model is better than always guessing the same, where the trainer has compared them."""
    if not {MAJORITY, GAIN_LOW, GAIN_HIGH} <= results.keys():
        return
    better = results[GAIN_LOW] > 0
    reason: UsefulReason = "BetterThanMajority" if better else "NoBetterThanMajority"
    remedy = "look at the labels, lower strategy.learningRate, train longer or more of the model, hold out more data"
    guess = "guessing the most frequent class"
    if "validation.microF1" in results:
        guess = "guessing the same labels"
    elif "validation.rmse" in results:
        guess = "saying the same number"
    message = (
        f"always {guess} has {figure(results[MAJORITY])} on the validation data; the 95 % interval of what"
        f" the model has more is {figure(results[GAIN_LOW], sign='+')} to {figure(results[GAIN_HIGH], sign='+')}"
    )
    conditions.set("Useful", better, reason, message if better else f"{message}: {remedy}")


def _given_back(context: Context) -> tuple[RunningReason, str] | None:
    again, times = next_try(context), context.carried.given_back
    if again is None:
        return None
    desired = context.spec.distribution.num_nodes
    text = f"fewer than {desired} nodes were free at once, and those that were have been given back"
    return "NodesGivenBack", f"{text} (try {times}); the next try is at {again:%H:%M:%S} UTC"


def _queued(context: Context) -> str:
    workload = context.children.workload
    why = f": {workload.message}" if workload is not None and workload.message else ""
    return f"Kueue has not admitted the job{why}"


def _waiting(context: Context) -> tuple[RunningReason, str] | None:
    waits = context.children.waiting(context.now)
    return (waits[0][1].reason, describe(waits)) if waits else None


def _lost(context: Context) -> tuple[RunningReason, str] | None:
    """Return what to say of pods whose nodes are silent, or of a leader that is."""
    pods = [pod for pod in context.children.live_pods if pod.unheard]
    if pods:
        more = f" (and {len(pods) - 1} more)" if len(pods) > 1 else ""
        return "NodeUnreachable", f"{pods[0].name}: its node {pods[0].node} has not been heard of{more}"
    if context.silent and context.at_work >= context.spec.distribution.num_nodes:
        return "LeaderSilent", "the leader has not answered twice in a row; the last that it said is shown"
    return None


def _fewer(context: Context) -> tuple[RunningReason, str]:
    text = f"{context.at_work} of {_pods(context.spec.distribution.num_nodes)} running"
    leaving = next((pod for pod in context.children.live_pods if pod.deleting), None)
    if leaving is None:
        return "PodsRestarting", text
    why = f" ({leaving.disruption})" if leaving.disruption else ""
    return "PodsRestarting", f"{text}; {leaving.name} is taken away{why} and writes its checkpoint"


def missing_pods(context: Context) -> tuple[int, datetime, bool] | None:
    """Return how many pods the Job controller has not made, from when on that is worth a word, and whether it made them before."""
    job, missing = context.children.job, context.spec.distribution.num_nodes - context.children.present
    if job is None or job.started is None or job.suspended or job.ending or missing <= 0:
        return None
    ends = [pod.finished or pod.created for pod in context.children.pods if pod.phase == "Failed"]
    if not ends and context.status.phase != "Running":
        return missing, job.started + timedelta(seconds=MISSING_SECONDS), False
    since = max(incomplete_since(context) or context.now, *ends, job.started)
    return missing, since + timedelta(seconds=PATIENCE_SECONDS), True


def _not_made(context: Context) -> tuple[RunningReason, str] | None:
    """Return what to say of pods that the Job controller does not make: of that only the Job's events tell."""
    job, found = context.children.job, missing_pods(context)
    if job is None or found is None or context.now < found[1]:
        return None
    missing, _, anew = found
    why = "a quota or an admission policy?"
    if anew:
        why = "a quota, an admission policy, or a pause after failures?"
    text = (
        f"{_pods(missing)} cannot be created{' anew' if anew else ''}; {why} `kubectl describe job {job.name}` says why"
    )
    return "PodsMissing", text


def _pods(count: int) -> str:
    return f"{count} pod" if count == 1 else f"{count} pods"
