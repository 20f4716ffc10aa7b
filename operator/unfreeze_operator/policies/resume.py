"""A job that is no longer to be suspended resumes."""

from __future__ import annotations

from unfreeze_operator.manifests.deadlines import active_deadline
from unfreeze_operator.objects.actions import Patch
from unfreeze_operator.objects.carried import at_resume
from unfreeze_operator.objects.resources import CARRIED_ANNOTATION, JOBS, RESUMED_ANNOTATION, Manifest
from unfreeze_operator.observed.context import Context, Verdict
from unfreeze_operator.observed.gangs import next_try
from unfreeze_operator.policies.pod_group import renewed


def check(context: Context) -> Verdict | None:
    """Resume the Job, unless a queue decides when it starts; one whose gang has given its nodes back after a pause."""
    children, job = context.children, context.children.job
    if job is None or not job.suspended or context.spec.run_policy.suspend or context.job.queue:
        return None
    again = next_try(context)
    suspended = any(found.type == "Suspended" and found.status == "True" for found in context.status.conditions)
    if again is not None and again > context.now and not suspended:
        left = (again - context.now).total_seconds()
        return Verdict("NodesGivenBack", f"the next try is in {left:.0f} s", stop=True, requeue_after=left)
    carried = at_resume(
        context.status,
        context.carried,
        job,
        pods=children.pods,
        accelerators=context.accelerators,
        now=context.now,
    )
    if suspended:
        carried = carried.model_copy(update={"gang_since": None})
    annotations = {CARRIED_ANNOTATION: carried.to_json(), RESUMED_ANNOTATION: f"{context.now:%Y-%m-%dT%H:%M:%SZ}"}
    change: Manifest = {"metadata": {"annotations": annotations}, "spec": {"suspend": False}}
    limit = None if job.pod_group else active_deadline(context.spec, carried)
    if limit is not None and job.counted is not None:
        # Up to Kubernetes 1.35 a Job keeps its start over a suspend, and is held to its deadline before it notes the new one.
        since = (context.now.replace(microsecond=0) - job.counted).total_seconds()
        change["spec"]["activeDeadlineSeconds"] = limit + max(0, int(since))
    # Its priority is that of when it was made, and the cluster's default may be another one now.
    seen = children.sees_groups and job.pod_group and children.pod_group is not None and not children.live_pods
    actions = *(renewed(context) if seen else ()), Patch(JOBS, job, change)
    return Verdict("Resuming", "the job is being resumed", actions, stop=True)
