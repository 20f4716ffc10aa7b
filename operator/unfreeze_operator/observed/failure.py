"""Why pods failed: the trainer's own words where it left some, else what the container's status says. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from unfreeze_api.contracts.progress import ExitCode, TerminationMessage
from unfreeze_api.contracts.status import Failure
from unfreeze_operator.objects.views import EPOCH, JobCondition, PodView

_LOG_TAIL = 4096
_MESSAGE = 4096
_CANNOT_START = ("ContainerCannotRun", "the container could not be started; see logTail")
_UNASKED = (
    "UnexpectedStop",
    (
        "the trainer received SIGTERM and exited with 143, though the pod was neither deleted nor evicted: look for what"
        " sends signals inside the container, or on its node"
    ),
)
_EXPLAINED = {
    "OOMKilled": (
        "OutOfMemory",
        (
            "the container used more memory than its limit and was killed: raise resourcesPerNode.limits.memory, or"
            " use a smaller batch or more nodes"
        ),
    ),
    "Evicted": ("Evicted", "the node was short of resources"),
    "ContainerCannotRun": _CANNOT_START,
    "StartError": _CANNOT_START,
    "NodeLost": ("NodeLost", "the node stopped answering; the pod was given up and is replaced on another one"),
}


def asked_to_stop(pod: PodView) -> bool:
    """Whether a pod ended because it was asked to, by a suspend, a deletion or an eviction: no failure of its own."""
    if pod.reason == "NeverScheduled":
        return True
    return pod.exit_code == ExitCode.STOPPED and (pod.deleting or pod.disrupted)


def stopped_unasked(pod: PodView) -> bool:
    """Whether a pod ended as if it had been asked to, and nobody in Kubernetes asked."""
    return pod.phase == "Failed" and pod.exit_code == ExitCode.STOPPED and not asked_to_stop(pod)


def first_failed(pods: Sequence[PodView]) -> PodView | None:
    """Return the pod that failed first in the newest round of failures.

    One pod that fails takes the others down with it, so the first one has the cause. Pods that were already gone when
    the newest one began failed in an earlier round, which was retried. Times have whole seconds: among equals the pod
    that says most is taken.
    """
    failed = [pod for pod in pods if pod.phase == "Failed" and not asked_to_stop(pod)]
    if not failed:
        return None
    newest = max(failed, key=lambda pod: (pod.finished or EPOCH, pod.created))
    round_ = [pod for pod in failed if (pod.finished or EPOCH) >= newest.created] or [newest]
    return min(round_, key=_cause_order)


def _cause_order(pod: PodView) -> tuple[object, ...]:
    reported = TerminationMessage.from_termination_log(pod.message)
    return (
        pod.finished or EPOCH,
        pod.exit_code != ExitCode.JOB_ERROR,
        reported is None,
        reported is None or reported.rank is None,
        pod.index,
    )


def pod_failure(pod: PodView) -> Failure:
    """Return what a failed pod's status says."""
    reported = TerminationMessage.from_termination_log(pod.message)
    reason, message = _UNASKED if stopped_unasked(pod) else _EXPLAINED.get(pod.reason, ("", ""))
    if reason == "Evicted" and pod.told:
        message = f"{message}: {pod.told}"
    if reported is not None and not reason:
        reason, message = reported.reason, reported.message
    if not reason:
        reason, message = _by_the_cluster(pod)
    # Without a message of the trainer Kubernetes keeps the last lines of its log in its place.
    log_tail = reported.log_tail if reported is not None else pod.message if pod.exit_code is not None else ""
    return Failure(
        reason=reason,
        message=message[:_MESSAGE],
        pod=pod.name,
        node=pod.node or None,
        rank=reported.rank if reported is not None and reported.rank is not None and reported.rank >= 0 else None,
        exit_code=pod.exit_code,
        log_tail=log_tail[-_LOG_TAIL:] or None,
    )


def _by_the_cluster(pod: PodView) -> tuple[str, str]:
    """Return why a pod failed of which neither its trainer nor its container's state says so."""
    if pod.exit_code is None and pod.told and not pod.disrupted:
        # No device that works, another pod that was faster, a node that shuts down.
        return "ContainerCannotRun", f"its node did not take the pod: {pod.told}"
    taken = f"; the pod was taken away ({pod.disruption or pod.told or pod.reason})" if pod.disrupted else ""
    ended = "the pod has failed" if pod.exit_code is None else f"the container ended with exit code {pod.exit_code}"
    return "ContainerFailed", f"{ended} and no explanation{taken}"


def job_failure(condition: JobCondition, pods: Sequence[PodView], known: Failure | None) -> Failure:
    """Return why a Job failed.

    Parameters
    ----------
    condition
        The Job's condition Failed.
    pods
        Its pods.
    known
        What was known before, for pods that are gone.
    """
    pod = first_failed(pods)
    if condition.reason != "DeadlineExceeded":
        if pod is not None:
            return pod_failure(pod)
        if known is not None:
            return known
    if condition.reason == "DeadlineExceeded":
        text = "the job ran longer than runPolicy.activeDeadlineSeconds: raise it, or train for fewer epochs"
        return Failure(reason="DeadlineExceeded", message=text)
    return Failure(reason=condition.reason[:64] or "Failed", message=condition.message[:_MESSAGE])
