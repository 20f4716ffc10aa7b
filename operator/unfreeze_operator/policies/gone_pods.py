"""Pods that are taken away take their accelerator seconds with them: the Job carries these on."""

from __future__ import annotations

from unfreeze_operator.objects.actions import Patch
from unfreeze_operator.objects.carried import accelerator_seconds
from unfreeze_operator.objects.resources import CARRIED_ANNOTATION, JOBS
from unfreeze_operator.observed.context import Context, Verdict
from unfreeze_operator.policies.finished import is_finished

LEAST_SECONDS = 60
"""Of one pod that are worth a write: what was told of a live pod may be some seconds more than its end confirms."""


def check(context: Context) -> Verdict | None:
    """Have what the status has told, and no pod at hand shows any more, added to what the Job carries.

    Otherwise the total would stand still until the pods that replace them had held as much.
    """
    job, carried = context.children.job, context.carried
    if job is None or job.suspended or not context.accelerators or is_finished(context.status):
        return None
    shown = carried.accelerator_seconds + accelerator_seconds(context.children.pods, context.accelerators, context.now)
    gone = (context.status.accelerator_seconds or 0) - shown
    if gone < LEAST_SECONDS * context.accelerators:
        return None
    carried = carried.model_copy(update={"accelerator_seconds": carried.accelerator_seconds + gone})
    change = {"metadata": {"annotations": {CARRIED_ANNOTATION: carried.to_json()}}}
    return Verdict("PodsGone", "accelerator seconds of pods that are gone are carried on", (Patch(JOBS, job, change),))
