"""What a pod that does not run waits for: the scheduler's words, or the node's. Pure.

Only what the pod itself says is read. A volume that cannot be mounted is reported by events alone; the pod says no more than
that it is not ready for its containers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from unfreeze_api.contracts.reasons import WaitingReason

MAX_WAITING = 16
"""Pods that a status names."""
PATIENCE_SECONDS = 60
"""How long a node may prepare volumes and images before that is worth a word."""

SHORT_PATIENCE_SECONDS = 10
"""How long the pods of a group may take to be made, and the group to be seen."""

_PATIENCE: dict[WaitingReason, int] = {
    "VolumesNotReady": PATIENCE_SECONDS,
    "ContainerCreating": PATIENCE_SECONDS,
    "PodGroupMissing": SHORT_PATIENCE_SECONDS,
    "PodGroupIncomplete": SHORT_PATIENCE_SECONDS,
}
_CONTAINER: dict[str, WaitingReason] = {
    "ErrImagePull": "ImagePull",
    "ImagePullBackOff": "ImagePull",
    "ErrImageNeverPull": "ImagePull",
    "InvalidImageName": "ImagePull",
    "ImageInspectError": "ImagePull",
    "RegistryUnavailable": "ImagePull",
    "SignatureValidationFailed": "ImagePull",
    "CreateContainerConfigError": "ConfigError",
    "CreateContainerError": "StartError",
    "RunContainerError": "StartError",
    "CrashLoopBackOff": "StartError",
}


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a pod does not run."""

    reason: WaitingReason
    message: str
    """In whose words there are some, else ours."""

    def since(self, created: datetime) -> datetime:
        """Return from when on this is worth a word, for a pod that was created then."""
        return created + timedelta(seconds=_PATIENCE.get(self.reason, 0))


def waiting(status: dict[str, Any], container: dict[str, Any]) -> Waiting | None:
    """Return what a pod waits for; nothing when it runs or has ended.

    Parameters
    ----------
    status
        The pod's status.
    container
        The status of the container that does not start.
    """
    if status.get("phase", "Pending") != "Pending":
        return None
    conditions = {condition["type"]: condition for condition in status.get("conditions", ())}
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") != "True":
        message = scheduled.get("message") or "the scheduler has not looked at it yet"
        reason = _scheduling(scheduled.get("reason", ""), message)
        return Waiting(reason, message) if scheduled else None
    state = container.get("state", {}).get("waiting", {})
    if known := _CONTAINER.get(state.get("reason", "")):
        return Waiting(known, _not_started(container, state))
    # GA since 1.29; without it a node that mounts cannot be distinguished from one that pulls.
    if conditions.get("PodReadyToStartContainers", {}).get("status") == "False":
        return Waiting("VolumesNotReady", "its node prepares volumes and network: the pod's events say what is missing")
    return Waiting("ContainerCreating", "its node pulls the image and starts the container")


def is_stuck(container: dict[str, Any]) -> bool:
    """Whether a container, by its status, cannot start."""
    return container.get("state", {}).get("waiting", {}).get("reason", "") in _CONTAINER


def _scheduling(reason: str, message: str) -> WaitingReason:
    if reason == "SchedulingGated":
        return "SchedulingGated"
    if re.search(r'persistentvolumeclaim "[^"]+" not found', message):
        return "ClaimNotFound"
    return "ClaimPending" if re.search("persistent ?volume", message, re.IGNORECASE) else "Unschedulable"


def _not_started(container: dict[str, Any], state: dict[str, Any]) -> str:
    """Return why a container does not start; words that change with each try would have the status written again and again."""
    message, image = str(state.get("message") or state["reason"]), container.get("image", "")
    if _CONTAINER[state["reason"]] == "ImagePull":
        # ErrImagePull and ImagePullBackOff take turns; this is what the second repeats of the first.
        return f"image {image}: {message.partition('ErrImagePull: ')[2] or message}"
    if state["reason"] == "CrashLoopBackOff":
        ended = container.get("lastState", {}).get("terminated", {})
        last = str(ended.get("message") or ended.get("reason") or "").strip().rpartition("\n")[2]
        code = ended.get("exitCode", "?")
        return (
            f"container {container['name']} of image {image} ends with code {code} again and again:"
            f" {last or 'its log may say more'}"
        )
    return message


def telling(pods: Sequence[tuple[str, Waiting, datetime]], now: datetime) -> list[tuple[str, Waiting]]:
    """Return the pods, as (name, what it waits for, created), whose waiting is worth a word now."""
    return [(name, what) for name, what, created in pods if now >= what.since(created)]


def describe(waits: Sequence[tuple[str, Waiting]]) -> str:
    """Return a sentence about the first of some waiting pods."""
    name, first = waits[0]
    more = f" (and {len(waits) - 1} more)" if len(waits) > 1 else ""
    return f"{name}: {first.message}{more}"
