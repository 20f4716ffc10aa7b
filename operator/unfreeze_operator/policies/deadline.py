"""runPolicy.activeDeadlineSeconds may change while a job runs; the Job controller keeps the time."""

from __future__ import annotations

from unfreeze_operator.manifests.deadlines import active_deadline, gang_deadline
from unfreeze_operator.objects.actions import Patch
from unfreeze_operator.objects.carried import at_work_since, ran
from unfreeze_operator.objects.resources import CARRIED_ANNOTATION, JOBS
from unfreeze_operator.observed.context import Context, Verdict

STARTING_SECONDS = 60
"""How long a gang that has its nodes may take to run before its deadline is written: most need no second write so."""


def check(context: Context) -> Verdict | None:
    """Hand a changed deadline to the Job; to one that Kueue has suspended, what its runs so far have left of it.

    One whose gang waits for the scheduler has none, and gets it when its pods run, or have nodes and do not come to run.
    """
    job = context.children.job
    if job is None:
        return None
    carried = context.carried
    if context.job.queue and job.suspended:
        carried = carried.model_copy(update={"active_seconds": max(carried.active_seconds, ran(context.status))})
    wanted = active_deadline(context.spec, carried)
    if job.pod_group and wanted is not None:
        since = at_work_since(context.status)
        if since is None or job.started is None or since < job.started:
            since = context.children.placed_since
            left = STARTING_SECONDS - (context.now - since).total_seconds() if since is not None else 0
            if left > 0:
                return Verdict("Starting", "the pods have nodes, no deadline yet", requeue_after=left)
        wanted = gang_deadline(context.spec, carried, context.status, job, since)
    elif wanted is not None and not job.suspended:
        wanted += job.overcounted
    if job.active_deadline == wanted:
        return None
    change = {
        "metadata": {"annotations": {CARRIED_ANNOTATION: carried.to_json()}},
        "spec": {"activeDeadlineSeconds": wanted},
    }
    return Verdict("DeadlineChanged", "the deadline is changed", (Patch(JOBS, job, change),))
