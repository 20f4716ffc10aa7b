"""runPolicy.ttlSecondsAfterFinished: a finished job is deleted on time, and its children with it."""

from __future__ import annotations

from datetime import timedelta

from unfreeze_operator.objects.actions import Delete
from unfreeze_operator.objects.resources import FINE_TUNE_JOBS
from unfreeze_operator.observed.context import Context, Verdict
from unfreeze_operator.policies.finished import is_finished


def check(context: Context) -> Verdict | None:
    """Delete a job that finished long enough ago; wake up when one that finished will have."""
    seconds = context.spec.run_policy.ttl_seconds_after_finished
    completed = context.status.completion_time
    if seconds is None or completed is None or not is_finished(context.status):
        return None
    left = (completed + timedelta(seconds=seconds) - context.now).total_seconds()
    if left > 0:
        return Verdict("Finished", f"the job is deleted in {left:.0f} s", stop=True, requeue_after=left)
    return Verdict("Expired", f"finished {seconds} s ago", (Delete(FINE_TUNE_JOBS, context.job),), stop=True)
