"""A job that asks for what the platform does not allow gets no Job; one that has its Job already keeps it."""

from __future__ import annotations

import json

from unfreeze_operator.manifests.children import spec_hash
from unfreeze_operator.objects.packing import unpack
from unfreeze_operator.observed.context import Context, Verdict
from unfreeze_operator.settings.allowed import objections
from unfreeze_operator.settings.sources import claim_objections, source_objections

MAX_SPEC_BYTES = 512 * 1024
"""Largest spec: each watch and each list carries it, and etcd takes no more than three times as much."""


def check(context: Context) -> Verdict | None:
    """Stop before a Job is made, at first or again, of a template that is not allowed."""
    job = context.children.job
    if job is not None and job.spec_hash == spec_hash(context.job, context.spec):
        return None
    if job is not None and (not job.suspended or context.children.live_pods):
        return None  # it is suspended first
    size = _bytes(context)
    large = [
        f"the spec has {size} bytes of JSON, more than {MAX_SPEC_BYTES}; put what is long into the image or a claim"
    ]
    if asked := list(source_objections(context.spec, context.sources)):
        return Verdict("SourceNotAllowed", "; ".join(asked), stop=True)
    found = [
        *objections(context.spec, context.allowed),
        *claim_objections(context.spec, context.sources),
        *(large if size > MAX_SPEC_BYTES else ()),
    ]
    if not found:
        return None
    advice = "suspend the job and change this, or ask whoever runs the operator"
    return Verdict("Refused", f"not allowed here: {'; '.join(found)}: {advice}", stop=True)


def _bytes(context: Context) -> int:
    return len(json.dumps(json.loads(unpack(context.job.spec)), ensure_ascii=False, separators=(",", ":")).encode())
