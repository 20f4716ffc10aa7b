"""A job that is being deleted: its children go by their owner references, nothing is left to do."""

from __future__ import annotations

from unfreeze_operator.observed.context import Context, Verdict


def check(context: Context) -> Verdict | None:
    """Stop when the job is being deleted."""
    if not context.job.deleting:
        return None
    return Verdict("Deleting", "the job is being deleted", stop=True)
