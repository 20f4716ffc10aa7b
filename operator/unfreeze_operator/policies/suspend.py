"""runPolicy.suspend: the pods write a checkpoint and stop."""

from __future__ import annotations

from datetime import datetime

from unfreeze_operator.manifests.deadlines import active_deadline
from unfreeze_operator.objects.actions import Delete, Patch
from unfreeze_operator.objects.carried import Carried, at_give_back, at_suspend
from unfreeze_operator.objects.resources import CARRIED_ANNOTATION, JOBS
from unfreeze_operator.objects.views import JobView
from unfreeze_operator.observed.context import Context, Verdict


def check(context: Context) -> Verdict | None:
    """Suspend the Job of a job that is to be suspended. In a queue the Job goes: Kueue would start it again."""
    job = context.children.job
    if job is None or not context.spec.run_policy.suspend:
        return None
    if context.job.queue or job.queue:
        # It stays until its pods have stopped, since they still hold their nodes, and have something to say.
        return Verdict("Suspending", "the job is being suspended", (Delete(JOBS, job, last=True),), stop=True)
    if job.suspended:
        return None
    return Verdict("Suspending", "the job is being suspended", (suspend(context, job),), stop=True)


def suspend(context: Context, job: JobView) -> Patch:
    """Return the patch that suspends a Job, keeping in the same write how long it ran."""
    return _suspend(context, job, at_suspend(context.carried, job, context.status, context.now))


def give_back(context: Context, job: JobView, since: datetime) -> Patch:
    """Return the patch that suspends a Job for a while, as its gang has been incomplete since then."""
    return _suspend(context, job, at_give_back(context.carried, job, context.status, since, context.now))


def _suspend(context: Context, job: JobView, carried: Carried) -> Patch:
    deadline = None if job.pod_group else active_deadline(context.spec, carried)
    change = {
        "metadata": {"annotations": {CARRIED_ANNOTATION: carried.to_json()}},
        "spec": {"suspend": True, "activeDeadlineSeconds": deadline},
    }
    return Patch(JOBS, job, change)
