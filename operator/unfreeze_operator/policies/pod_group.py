"""The PodGroup of the gang, where the server has such: made before its pods, and kept at what of the gang is not done."""

from __future__ import annotations

from unfreeze_operator.manifests.children import spec_hash
from unfreeze_operator.manifests.pod_groups import gang, pod_group
from unfreeze_operator.objects.actions import Action, Create, Delete, Patch
from unfreeze_operator.objects.resources import POD_GROUPS, named
from unfreeze_operator.observed.context import Context, Verdict


def group_name(context: Context) -> str:
    """Return the name of the PodGroup for the pods of a Job that is made now; nothing where they are in none.

    Kueue starts no Job that there is no room for, and one pod is no gang.
    """
    gangs = context.children.sees_groups and not context.job.queue and context.spec.distribution.num_nodes > 1
    return named(POD_GROUPS, context.job.name) if gangs else ""


def renewed(context: Context) -> tuple[Action, ...]:
    """Return what brings the PodGroup in line with a Job that is made anew, or runs again: its priority can never change."""
    view, made = context.children.pod_group, (_made(context, context.spec.distribution.num_nodes),)
    return (*((Delete(POD_GROUPS, view),) if view is not None else ()), *(made if group_name(context) else ()))


def _made(context: Context, count: int) -> Create:
    """Return the creation of the PodGroup; a Job whose pods do not name it yet can be made without."""
    job = context.children.job
    named = job is not None and job.spec_hash == spec_hash(context.job, context.spec)
    return Create(POD_GROUPS, pod_group(context.job, context.spec, count), optional=not named)


def check(context: Context) -> Verdict | None:
    """Create the PodGroup of a Job that is in one, and have it count the pods that are not done.

    A pod that has succeeded is no part of a gang any more: its group would wait for it for ever before it lets another pod be
    replaced. Only then the number is lowered, since each pod of a job that ends would be a write otherwise.
    """
    children, job, wanted = context.children, context.children.job, spec_hash(context.job, context.spec)
    if not children.sees_groups or (job is not None and job.spec_hash != wanted):
        return None  # a Job of another spec is made anew, with its group
    if not (group_name(context) if job is None else job.pod_group):
        return None
    count, view = max(1, context.spec.distribution.num_nodes - children.finished), children.pod_group
    if view is None:
        return Verdict("Creating", "the PodGroup is created", (_made(context, count),))
    if view.spec_hash not in ("", wanted) and not children.live_pods:
        # Its Job was made anew while nobody could see it.
        return Verdict("Repairing", "the PodGroup is made anew", renewed(context))
    wait = any(not pod.node for pod in children.live_pods)
    if view.min_count == count or (view.min_count > count and not wait):
        return None
    change = {"spec": {"schedulingPolicy": gang(count)}}
    return Verdict("Repairing", "the PodGroup counts what is not done", (Patch(POD_GROUPS, view, change),))
