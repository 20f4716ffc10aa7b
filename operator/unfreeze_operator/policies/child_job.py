"""The Indexed Job is made last: its pods need the ConfigMap and the Service. What the server lets others change is changed back."""

from __future__ import annotations

from unfreeze_operator.manifests import children
from unfreeze_operator.objects.actions import Create, Patch
from unfreeze_operator.objects.carried import Carried, at_start
from unfreeze_operator.objects.resources import JOBS, Manifest
from unfreeze_operator.objects.views import JobView
from unfreeze_operator.observed.context import Context, Verdict
from unfreeze_operator.policies.pod_group import group_name


def check(context: Context) -> Verdict | None:
    """Create the Job; a suspended one too, so that a template that the API refuses is known early.

    Not so in a queue: Kueue would admit a suspended Job and start it.
    """
    if context.children.job is not None:
        return _repaired(context, context.children.job)
    if context.job.queue and context.spec.run_policy.suspend:
        return Verdict("Suspended", "the job is suspended", stop=True)
    return Verdict("Creating", "the Job is created", (Create(JOBS, manifest(context, None)),), stop=True)


def manifest(context: Context, before: Carried | None) -> Manifest:
    """Return the Job as the spec has it now; `before` is what the one that it takes the place of has carried."""
    return children.indexed_job(
        context.job,
        context.spec,
        context.image,
        at_start(context.status, before, context.now),
        context.names,
        sources=context.sources,
        pod_group=group_name(context),
    )


def _repaired(context: Context, job: JobView) -> Verdict | None:
    """Change size and tries of a Job back that somebody changed by hand: with fewer pods a gang would wait for ever.

    Both numbers of an Indexed Job's pods can be changed together, and completions in no other way.
    A queue may start fewer pods than a Job asks for.
    """
    wanted = {
        "completions": context.spec.distribution.num_nodes,
        "parallelism": context.spec.distribution.num_nodes,
        "backoffLimit": context.spec.run_policy.backoff_limit,
    }
    found = {
        "completions": job.completions,
        "parallelism": job.parallelism,
        "backoffLimit": job.backoff_limit,
    }
    if found == wanted or context.job.queue or job.spec_hash != children.spec_hash(context.job, context.spec):
        return None
    return Verdict("Repairing", "the Job is brought up to date", (Patch(JOBS, job, {"spec": wanted}),))
