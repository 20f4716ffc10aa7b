"""The child Job has ended, or its outcome is settled: it is left alone."""

from __future__ import annotations

from unfreeze_operator.observed.context import Context, Verdict


def check(context: Context) -> Verdict | None:
    """Stop when the Job controller has settled the Job's outcome."""
    job = context.children.job
    if job is None or not job.ending:
        return None
    return Verdict("Ending", "the Job has ended", stop=True)
