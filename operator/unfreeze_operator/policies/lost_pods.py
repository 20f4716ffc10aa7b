"""Pods that are being deleted and that nobody will ever report on: on a dead node, or never on any node."""

from __future__ import annotations

from datetime import timedelta

from unfreeze_api.contracts.reasons import PodReason
from unfreeze_operator.objects.actions import Abandon
from unfreeze_operator.objects.views import PodView
from unfreeze_operator.observed.context import Context, Verdict

_NEVER_RAN: tuple[PodReason, str] = "NeverScheduled", "deleted before it had a node"
_LOST: tuple[PodReason, str] = "NodeLost", "deleted, and its node has not ended it in time"


def check(context: Context) -> Verdict | None:
    """Give up pods that the cluster has deleted, and that do not go.

    A kubelet that is alive kills what outlives its grace period. A pod that is there long after is on a node that is
    dead or out of reach, where it would be Terminating for ever, and its Job would wait for it before it makes another
    one. Where the cluster has not heard of the node, nobody uses the grace period, and it is not waited for. A pod without a node has no kubelet at all: the cluster's own collector fails it in the end, which counts
    against the backoff limit as if the job had failed.
    """
    pods = [*context.children.pods, *(view for view in context.children.namesakes if isinstance(view, PodView))]
    actions, waits = [], []
    for pod in pods:
        if pod.gone_by is None:
            continue
        if not pod.node:
            actions.append(Abandon(pod, *_NEVER_RAN))
        elif context.lost_pod_grace:
            since = pod.deleted_at if pod.unheard and pod.deleted_at else pod.gone_by
            left = (since + timedelta(seconds=context.lost_pod_grace) - context.now).total_seconds()
            if left > 0:
                waits.append(left)
            else:
                actions.append(Abandon(pod, *_LOST))
    if not actions and not waits:
        return None
    text = f"{len(actions)} of the pods are given up"
    return Verdict("LostPods", text, tuple(actions), requeue_after=min(waits, default=None))
