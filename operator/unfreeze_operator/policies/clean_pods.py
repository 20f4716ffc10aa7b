"""The pods of a job that has finished: those that still run stop, and runPolicy.cleanPodPolicy says which of them go."""

from __future__ import annotations

from unfreeze_operator.objects.actions import Delete, Patch
from unfreeze_operator.objects.resources import JOBS
from unfreeze_operator.observed.context import Context, Verdict
from unfreeze_operator.policies.finished import is_finished


def check(context: Context) -> Verdict | None:
    """Delete the child Job, and so its pods, when all of them are to go; end a Job that does not know of its end yet.

    The Job controller stops the pods of a Job that has ended, and keeps those that ended before. Where the operator gave
    the job up, the Job runs on: a deadline that is over ends it, in a queue too, where a suspended Job would be started
    again. All of this waits for the status to be written, since it says what the pods can no longer tell.
    """
    job = context.children.job
    if job is None or job.deleting or not is_finished(context.status):
        return None
    if context.spec.run_policy.clean_pod_policy == "All":
        return Verdict("CleaningPods", "the Job and its pods are deleted", (Delete(JOBS, job),))
    if job.ending or job.active_deadline == 1:
        return None
    return Verdict("CleaningPods", "the Job ends", (Patch(JOBS, job, {"spec": {"activeDeadlineSeconds": 1}}),))
