"""The status that a node reports of a pod, computed from the state of its containers. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.cluster.container import Container

Json = dict[str, Any]


def phase_of(inits: Sequence[Container], containers: Sequence[Container], finished: bool) -> str:
    """Return the pod's phase; ``finished`` says that no container will be started again."""
    everyone = [*(c for c in inits if not c.sidecar), *containers]
    if finished:
        return "Succeeded" if all(c.exit_code == 0 for c in everyone) else "Failed"
    if not all(_initialized(c) for c in inits):
        return "Pending"
    if any("running" in c.state or c.last_state or c.exit_code is not None for c in containers):
        return "Running"
    return "Pending"


def conditions_of(
    inits: Sequence[Container], containers: Sequence[Container], mounted: bool, finished: bool, now: str
) -> list[Json]:
    """Return the conditions that a node owns; PodScheduled is the scheduler's."""
    unready = [c.name for c in containers if not c.ready]
    initialized = all(_initialized(c) for c in inits)
    done = finished and all(c.exit_code == 0 for c in [*inits, *containers] if not c.sidecar)
    message = f"containers with unready status: [{' '.join(unready)}]"
    if done:
        reason, message = "PodCompleted", ""
    elif finished:
        reason = "PodFailed"
    else:
        reason = "ContainersNotReady"
    ready = _condition(not unready and not finished, reason, message)
    not_initialized = [c.name for c in inits if not _initialized(c)]
    waits = f"containers with incomplete status: [{' '.join(not_initialized)}]"
    by_type = {
        "PodReadyToStartContainers": _condition(mounted and not finished, "", ""),
        "Initialized": _condition(initialized, "ContainersNotInitialized", waits),
        "ContainersReady": ready,
        "Ready": ready,
    }
    return [{"type": kind, "lastTransitionTime": now, **condition} for kind, condition in by_type.items()]


def keep_transition_times(conditions: list[Json], previous: list[Json]) -> None:
    """Let a condition whose status did not change keep its time of transition."""
    known = {condition["type"]: condition for condition in previous}
    for condition in conditions:
        before = known.get(condition["type"])
        if before and before["status"] == condition["status"]:
            condition["lastTransitionTime"] = before["lastTransitionTime"]


def settle(containers: Sequence[Container], now: str) -> None:
    """Give containers that were never started, or wait for a restart that will not come, a final state."""
    for container in containers:
        if container.exit_code is None:
            container.state = container.last_state or {
                "terminated": {
                    "exitCode": 137,
                    "reason": "ContainerStatusUnknown",
                    "message": "The container was not started before the pod ended",
                    "startedAt": None,
                    "finishedAt": now,
                }
            }
        container.ready = container.started = False


def _initialized(container: Container) -> bool:
    """Whether an init container lets those after it start: it has ended well, or as a sidecar has been started."""
    once = container.started or container.restarts > 0 or container.exit_code is not None
    return once if container.sidecar else container.exit_code == 0


def _condition(true: bool, reason: str, message: str) -> Json:
    if true:
        return {"status": "True", "reason": None, "message": None}
    return {"status": "False", "reason": reason or None, "message": message or None}
