"""numNodes, resources or template changed while the job was suspended: its Job is recreated with the new ones."""

from __future__ import annotations

from unfreeze_operator.manifests import children
from unfreeze_operator.objects.actions import Create, Delete
from unfreeze_operator.objects.resources import JOBS
from unfreeze_operator.observed.context import Context, Verdict
from unfreeze_operator.policies.child_job import manifest
from unfreeze_operator.policies.pod_group import renewed
from unfreeze_operator.policies.suspend import suspend


def check(context: Context) -> Verdict | None:
    """Replace a Job that was made from another spec.

    The API allows such a change only while the job is suspended. When it was suspended, changed and resumed faster
    than the operator looked, the Job still runs: then it is suspended first, so that its pods write a checkpoint. In a
    queue it goes, and its pods before it: Kueue would start it again.
    """
    job = context.children.job
    if job is None or job.spec_hash == children.spec_hash(context.job, context.spec):
        return None
    if not job.suspended:
        stops = Delete(JOBS, job, last=True) if job.queue else suspend(context, job)
        return Verdict("Restarting", "the job restarts with its new spec", (stops,), stop=True)
    if context.children.live_pods:
        return Verdict("Restarting", "the job restarts with its new spec when its pods have stopped", stop=True)
    actions = *renewed(context), Delete(JOBS, job), Create(JOBS, manifest(context, context.carried))
    return Verdict("Restarting", "the Job is recreated from the new spec", actions, stop=True)
