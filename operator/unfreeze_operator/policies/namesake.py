"""Children of an earlier job of the same name, or children that are on their way out, must be gone first."""

from __future__ import annotations

from unfreeze_operator.observed.context import Context, Verdict


def check(context: Context) -> Verdict | None:
    """Wait for objects in the way; their deletion wakes the job up.

    Two sets of pods under one headless Service would answer to the same host names.
    """
    children = context.children
    # The server keeps a PodGroup as long as one of its pods runs: a Job that is there goes on, and can be suspended.
    group = children.pod_group if children.job is None else None
    own = (children.job, children.service, children.config_map, children.network_policy, group)
    waiting = [*children.namesakes, *(child for child in own if child is not None and child.deleting)]
    if not waiting:
        return None
    first = waiting[0]
    kind = type(first).__name__.removesuffix("View")
    message = f"{kind} {first.name} is still being deleted"
    if not first.deleting:
        message = (
            f"{kind} {first.name} has this job's label and belongs to something else: unless it is an earlier job of this"
            " name, with which it goes, delete it or take the label away"
        )
    return Verdict("WaitingForDeletion", message, stop=True)
