"""runPolicy.cleanPodPolicy: what becomes of the pods of a job that has finished."""

from __future__ import annotations

from unfreeze_operator.actions import Delete
from unfreeze_operator.context import Context, Verdict
from unfreeze_operator.policies.finished import is_finished
from unfreeze_operator.resources import JOBS


def check(context: Context) -> Verdict | None:
    """Delete the child Job, and so its pods, when all of them are to go.

    The other two policies need nothing: the Job controller stops what still runs, and keeps what has ended. All waits
    for the status to be written, since it says what the pods can no longer tell.
    """
    job = context.children.job
    if job is None or job.deleting or not is_finished(context.status):
        return None
    if context.spec.run_policy.clean_pod_policy != "All":
        return None
    return Verdict("CleaningPods", "the Job and its pods are deleted", (Delete(JOBS, job),))
