"""runPolicy.backoffLimit, as far as the Job controller cannot count it: pods that stop without having been asked to."""

from __future__ import annotations

from unfreeze_operator.observed.context import Context, Verdict
from unfreeze_operator.observed.failure import first_failed, pod_failure, stopped_unasked


def check(context: Context) -> Verdict | None:
    """End a job whose pods exit with 143 of themselves more often than they may fail.

    The Job's podFailurePolicy knows exit codes and conditions, but not whether a pod was being deleted: it has to ignore
    every 143, or each pod that somebody deletes would use the limit up. Those that nobody asked for are counted here,
    beside what the Job controller counts; a pod that was deleted leaves the API with its end, so that what remains is the
    job's own doing.
    """
    job = context.children.job
    if job is None or context.spec.run_policy.suspend:
        return None
    stops = sum(stopped_unasked(pod) for pod in context.children.pods)
    if not stops or job.failed + stops <= context.spec.run_policy.backoff_limit:
        return None
    pod = first_failed(context.children.pods)
    assert pod is not None  # one that stopped unasked has failed
    return Verdict("BackoffLimitExceeded", "pods failed too often", stop=True, failure=pod_failure(pod))
