"""A job that asks for what the platform does not allow gets no Job; one that has its Job already keeps it."""

from __future__ import annotations

from unfreeze_operator.allowed import objections
from unfreeze_operator.children import spec_hash
from unfreeze_operator.context import Context, Verdict


def check(context: Context) -> Verdict | None:
    """Stop before a Job is made, at first or anew, of a template that is not allowed."""
    job = context.children.job
    if job is not None and job.spec_hash == spec_hash(context.job, context.spec):
        return None
    if job is not None and (not job.suspended or context.children.live_pods):
        return None  # it is suspended first
    found = objections(context.spec, context.allowed)
    if not found:
        return None
    advice = "suspend the job and change this, or ask whoever runs the operator"
    return Verdict("Refused", f"not allowed here: {'; '.join(found)}: {advice}", stop=True)
