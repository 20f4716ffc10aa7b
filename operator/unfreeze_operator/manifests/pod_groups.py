"""The PodGroup of a gang, by which the scheduler places all of its pods or none. Pure."""

from __future__ import annotations

from unfreeze_api.spec.job import FineTuneJobSpec
from unfreeze_operator.manifests.children import head, spec_hash
from unfreeze_operator.objects.resources import POD_GROUPS, SPEC_HASH_ANNOTATION, Manifest, named
from unfreeze_operator.objects.views import FineTuneJobView


def pod_group(job: FineTuneJobView, spec: FineTuneJobSpec, count: int) -> Manifest:
    """Return the PodGroup, of so many pods that are not done; it is preempted as a whole, or not at all."""
    # Of another priority than its pods a group is never scheduled. Without a class both get the cluster's default.
    priority = {"priorityClassName": spec.template.priority_class_name} if spec.template.priority_class_name else {}
    return {
        **head(job, POD_GROUPS, named(POD_GROUPS, job.name), annotations={SPEC_HASH_ANNOTATION: spec_hash(job, spec)}),
        "spec": {"schedulingPolicy": gang(count), "disruptionMode": {"all": {}}, **priority},
    }


def gang(count: int) -> Manifest:
    """Return the policy of a gang of so many pods."""
    return {"gang": {"minCount": count}}
