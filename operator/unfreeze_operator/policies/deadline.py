"""runPolicy.activeDeadlineSeconds may change while a job runs; the Job controller keeps the time."""

from __future__ import annotations

from unfreeze_operator.actions import Patch
from unfreeze_operator.carried import read_carried
from unfreeze_operator.children import active_deadline
from unfreeze_operator.context import Context, Verdict
from unfreeze_operator.resources import JOBS


def check(context: Context) -> Verdict | None:
    """Hand a changed deadline to the Job."""
    job = context.children.job
    if job is None:
        return None
    wanted = active_deadline(context.spec, read_carried(job))
    if job.active_deadline == wanted:
        return None
    change = {"spec": {"activeDeadlineSeconds": wanted}}
    return Verdict("DeadlineChanged", "the deadline is changed", (Patch(JOBS, job, change),))
