"""A gang that holds some nodes and finds no others gives them back: two halves of two gangs would wait for ever."""

from __future__ import annotations

from datetime import timedelta

from unfreeze_operator.observed.context import Context, Verdict
from unfreeze_operator.observed.gangs import incomplete_since, patience
from unfreeze_operator.policies.suspend import give_back


def check(context: Context) -> Verdict | None:
    """Suspend the Job of a gang that has held nodes for too long; the policy `resume` lets it try again.

    In a queue nothing is to be done: Kueue starts no Job that there is no room for.
    """
    job, since = context.children.job, incomplete_since(context)
    if job is None or job.started is None or since is None or context.job.queue or not context.gang_patience:
        return None
    placed, desired = context.children.placed, context.spec.distribution.num_nodes
    if not placed or placed >= desired:
        return None
    # Each try has the whole time.
    left = (max(since, job.started) + timedelta(seconds=patience(context)) - context.now).total_seconds()
    if left > 0:
        return Verdict("Starting", f"{placed} of {desired} pods have a node", requeue_after=left)
    text = f"{placed} of {desired} pods had a node"
    return Verdict("NodesGivenBack", text, (give_back(context, job, since),), stop=True)
