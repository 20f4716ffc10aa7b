"""A job that is no longer to be suspended goes on."""

from __future__ import annotations

from unfreeze_operator.actions import Patch
from unfreeze_operator.carried import at_start
from unfreeze_operator.context import Context, Verdict
from unfreeze_operator.resources import CARRIED_ANNOTATION, JOBS


def check(context: Context) -> Verdict | None:
    """Resume the Job, unless a queue decides when it starts."""
    children, job = context.children, context.children.job
    if job is None or not job.suspended or context.spec.run_policy.suspend or context.job.queue:
        return None
    carried = at_start(context.status, job, children.pods, context.accelerators, context.now)
    change = {"metadata": {"annotations": {CARRIED_ANNOTATION: carried.to_json()}}, "spec": {"suspend": False}}
    return Verdict("Resuming", "the job is being resumed", (Patch(JOBS, job, change),), stop=True)
