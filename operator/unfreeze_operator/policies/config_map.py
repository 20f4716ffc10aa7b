"""The ConfigMap with job.json: made, repaired when somebody changed it, replaced when the spec changed."""

from __future__ import annotations

from unfreeze_operator.manifests.children import config_map, spec_hash
from unfreeze_operator.objects.actions import Create, Patch
from unfreeze_operator.objects.resources import CHILD_JOB_ANNOTATION, CONFIG_MAPS, SERVICE_ANNOTATION, child_name
from unfreeze_operator.objects.views import ConfigMapView
from unfreeze_operator.observed.context import Context, Verdict


def check(context: Context) -> Verdict | None:
    """Create or repair the ConfigMap.

    A new operator may resolve the same spec differently; a job keeps the content that it started with.
    """
    job, view = context.job, context.children.config_map
    if view is None:
        action = Create(CONFIG_MAPS, config_map(job, context.spec, context.names, context.prices))
        return Verdict("Creating", "the ConfigMap is created", (action,))
    if not view.drifted and view.spec_hash == spec_hash(job, context.spec):
        return _names(context, view)
    manifest = config_map(job, context.spec, context.names, context.prices)
    change = {"metadata": {"annotations": manifest["metadata"]["annotations"]}, "data": manifest["data"]}
    return Verdict("Repairing", "the ConfigMap is brought up to date", (Patch(CONFIG_MAPS, view, change),))


def _names(context: Context, view: ConfigMapView) -> Verdict | None:
    """Write the names of Job and Service again where somebody changed them, or took them out: by them these would be made again.

    One that is missing stands for the job's own name, which children have that an earlier version made.
    """
    own = child_name(context.job.name)
    wanted, found = (context.names.job, context.names.service), (view.child_job or own, view.service or own)
    if found == wanted:
        return None
    annotations = {CHILD_JOB_ANNOTATION: wanted[0], SERVICE_ANNOTATION: wanted[1]}
    change = {"metadata": {"annotations": annotations}}
    return Verdict("Repairing", "the ConfigMap is brought up to date", (Patch(CONFIG_MAPS, view, change),))
