"""Conditions of a status: set in place, with the time at which each last changed its value."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, get_args

from unfreeze_api.contracts.status import Condition, Phase
from unfreeze_operator.objects import waiting

Type = Literal["Running", "Suspended", "Complete", "Failed", "Reconciling", "Stalled", "CheckpointBroken", "Useful"]

REASONS: dict[Type, tuple[str, ...]] = {
    "Running": (
        "PodsRunning",
        "PodsPending",
        "PodsMissing",
        "NodesGivenBack",
        *waiting.REASONS,
        "PodsRestarting",
        "Queued",
        "Suspending",
        "Suspended",
        "Succeeded",
        "Failed",
        "WaitingForDeletion",
        "NameTaken",
        "Forbidden",
        "InvalidSpec",
        "Refused",
    ),
    "Suspended": ("Suspended", "Suspending", "Resumed"),
    "Complete": ("Succeeded",),
    "Failed": (
        "InvalidSpec",
        "Refused",
        "StartupTimeout",
        "DeadlineExceeded",
        "BackoffLimitExceeded",
        "PodFailurePolicy",
        "OutOfMemory",
        "UnexpectedStop",
        "NodeLost",
        "Evicted",
        "ContainerCannotRun",
        "ContainerFailed",
        "Retrying",
    ),
    "CheckpointBroken": ("WentBack", "StartedOver"),
    "Useful": ("BetterThanMajority", "NoBetterThanMajority"),
}
"""Every reason of the operator's own, which docs/operations.md explains. Failed has those of the trainer besides;
Stalled always says what Failed does, and Reconciling what Running does."""


class Conditions:
    """The conditions of one job at one moment.

    Parameters
    ----------
    old
        As they were written last.
    now
        The time, for those that change.
    generation
        Generation of the spec that they are about.
    """

    def __init__(self, old: Sequence[Condition], now: datetime, generation: int) -> None:
        self._by_type: dict[str, Condition] = {condition.type: condition for condition in old}
        self._now = now.replace(microsecond=0)
        self._generation = generation

    def set(self, type_: Type, holds: bool, reason: str, message: str) -> None:
        """Set one condition; its time moves only when its value does.

        Raises
        ------
        ValueError
            Nobody could look the reason up.
        """
        if type_ not in ("Failed", "Reconciling", "Stalled") and reason not in REASONS[type_]:
            raise ValueError(f"condition {type_} has no reason {reason}")
        old = self._by_type.get(type_)
        value: Literal["True", "False"] = "True" if holds else "False"
        self._by_type[type_] = Condition(
            type=type_,
            status=value,
            reason=reason,
            message=message[:32768],
            last_transition_time=old.last_transition_time if old and old.status == value else self._now,
            observed_generation=self._generation,
        )

    def clear(self, type_: Type, reason: str, message: str) -> None:
        """Make a condition false if it was ever set."""
        if type_ in self._by_type:
            self.set(type_, False, reason, message)

    def set_running(self, phase: Phase, holds: bool, reason: str, message: str) -> None:
        """Set Running, and Reconciling with it: true while pods should run, and not all do."""
        self.set("Running", holds, reason, message)
        if phase in ("Pending", "Running") and not holds:
            self.set("Reconciling", True, reason, message)
        else:
            self.clear("Reconciling", reason, message)

    def all(self) -> list[Condition]:
        """Return the conditions in a fixed order."""
        return [self._by_type[type_] for type_ in get_args(Type) if type_ in self._by_type]
