"""Totals over all runs of a job: what pods counted that are gone is carried on in an annotation of the child Job.

A total is `carried + what the pods at hand add up to`. When a run begins, `carried` is set so that the total stays
what the status says; a restart of the operator computes the same total again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from pydantic import Field

from unfreeze_api.contracts.status import AT_WORK, FineTuneJobStatus
from unfreeze_api.grammar.model import Model
from unfreeze_operator.objects.views import JobView, PodView


class Carried(Model):
    """What earlier runs add to the totals of this one."""

    accelerator_seconds: int = Field(default=0, ge=0)
    """Accelerators times seconds."""
    active_seconds: int = Field(default=0, ge=0)
    """Seconds of running that count towards the deadline."""
    ran_before: int = Field(default=0, ge=0)
    """Seconds that pods had run by the status when this run began, for a Job that cannot tell how long it ran."""
    pod_restarts: int = Field(default=0, ge=0)
    """Pods that were replaced."""
    in_place_restarts: int = Field(default=0, ge=0)
    """Restarts of the workers within their pods."""
    given_back: int = Field(default=0, ge=0)
    """Times that the gang gave nodes back because it found too few."""
    given_back_at: datetime | None = None
    """When it did so last, until it tries again."""
    gang_since: datetime | None = None
    """Since when it has been incomplete, over all its tries."""


def read_carried(job: JobView | None) -> Carried:
    """Return what a Job carries; nothing when it has no readable annotation."""
    try:
        return Carried.read(job.carried) if job and job.carried else Carried()
    except ValueError:  # edited by hand: counting continues from the status, which never falls
        return Carried()


def accelerator_seconds(pods: Sequence[PodView], accelerators: int, now: datetime) -> int:
    """Return accelerators times seconds that the pods at hand have held them; `accelerators` of each that does not say its own."""
    held = 0.0
    # The API's times are whole seconds, rounded down: a live pod must not count more than its end will confirm,
    # as the total never falls again.
    now = now.replace(microsecond=0)
    for pod in pods:
        if pod.started is not None:
            begin = pod.started
            if pod.live and pod.finished is None and pod.scheduled is not None:
                begin = max(begin, pod.scheduled)  # of a node whose clock is behind
            end = pod.finished or (now if pod.live else begin)
            each = accelerators if pod.accelerators is None else pod.accelerators
            held += max(0.0, (end - begin).total_seconds()) * each
    return int(held)


def pod_restarts(job: JobView | None, pods: Sequence[PodView]) -> int:
    """Return how many pods of a Job replaced another one.

    Pods can be gone before anybody looks at them. Those that failed the Job controller has counted by then: all that it
    has counted, but the first of each index, replaced one. It does not count what it ignores, such as evictions.

    Those of before a suspend were not replaced: until they are gone, they lie beside those of after it.
    """
    started = job.started if job is not None else None
    counts = Counter(pod.index for pod in pods if not pod.deleting or (started and pod.created >= started))
    at_hand = sum(count - 1 for count in counts.values())
    counted = job.failed + job.succeeded + job.active - job.parallelism if job is not None else 0
    return max(at_hand, counted)


def pods_to_replace(job: JobView, pods: Sequence[PodView]) -> int:
    """Return how many pods of a suspended Job will have been replaced as soon as it runs again."""
    return max(sum(pod.phase == "Failed" and not pod.deleting for pod in pods), job.failed)


def ran(status: FineTuneJobStatus, now: datetime | None = None) -> int:
    """Return for how many seconds pods have run, where no Job tells: up to the present state, or with it up to `now`.

    Kueue suspends and resumes without the operator; and a Job counts the time in which its gang waits for the scheduler.
    """
    spent, since = status.state_seconds, at_work_since(status)
    before = spent.starting + spent.training + spent.recovering if spent is not None else 0
    return before + (max(0, int((now - since).total_seconds())) if now is not None and since is not None else 0)


def at_work_since(status: FineTuneJobStatus) -> datetime | None:
    """Return since when the present state lasts, if it is one in which pods run."""
    spent = status.state_seconds
    return spent.since if spent is not None and spent.state in AT_WORK else None


def at_suspend(carried: Carried, job: JobView, status: FineTuneJobStatus, now: datetime) -> Carried:
    """Return what a Job carries from the moment that it is suspended: the time towards the deadline stops."""
    lasted = (now - job.started).total_seconds() if job.started else 0
    update: dict[str, object] = {"given_back_at": None, "gang_since": None}
    if job.pod_group:
        lasted = ran(status, now) - carried.ran_before
        update["ran_before"] = ran(status, now)
    return carried.model_copy(update={**update, "active_seconds": carried.active_seconds + max(0, int(lasted))})


def at_give_back(carried: Carried, job: JobView, status: FineTuneJobStatus, since: datetime, now: datetime) -> Carried:
    """Return what a Job carries from the moment that its gang gives its nodes back.

    Parameters
    ----------
    since
        Since when the gang has been incomplete.
    """
    carried = at_suspend(carried, job, status, now)
    update = {"given_back": carried.given_back + 1, "given_back_at": now.replace(microsecond=0), "gang_since": since}
    return carried.model_copy(update=update)


def at_start(status: FineTuneJobStatus, before: Carried | None, now: datetime) -> Carried:
    """Return what a new Job carries, so that the totals of the status continue.

    Parameters
    ----------
    status
        The status with the totals so far.
    before
        What the Job carries that it replaces, if any.
    now
        Until then an earlier run has lasted whose pods still write their checkpoint.
    """
    restarts, carried = status.restarts, before or Carried()
    return Carried(
        accelerator_seconds=status.accelerator_seconds or 0,
        active_seconds=carried.active_seconds if before is not None else ran(status),
        ran_before=ran(status, now if before is not None else None),
        pod_restarts=restarts.pods if restarts else 0,
        in_place_restarts=restarts.in_place if restarts else 0,
        given_back=carried.given_back,
        gang_since=carried.gang_since if carried.given_back_at is not None else None,
    )


def at_resume(
    status: FineTuneJobStatus,
    before: Carried,
    job: JobView,
    *,
    pods: Sequence[PodView],
    accelerators: int,
    now: datetime,
) -> Carried:
    """Return what a Job carries when it resumes: the totals of the status, but for what still counts as its own.

    Parameters
    ----------
    status
        The status with the totals so far.
    before
        What the Job carries now.
    job, pods
        The Job, and its pods at hand.
    """
    carried = at_start(status, before, now)
    held = accelerator_seconds(pods, accelerators, now)
    update = {
        "accelerator_seconds": max(0, carried.accelerator_seconds - held),
        "pod_restarts": max(before.pod_restarts, carried.pod_restarts - pods_to_replace(job, pods)),
    }
    return carried.model_copy(update=update)
