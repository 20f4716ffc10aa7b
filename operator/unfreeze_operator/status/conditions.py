"""Conditions of a status: set in place, with the time at which each last changed its value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, get_args

from unfreeze_api.contracts import reasons
from unfreeze_api.contracts.reasons import (
    CheckpointBrokenReason,
    CompleteReason,
    FailedReason,
    RunningReason,
    SuspendedReason,
    UsefulReason,
)
from unfreeze_api.contracts.status import Condition, JobPhase
from unfreeze_operator.observed.gangs import OF_COMPLETE_GANGS

Type = Literal["Running", "Suspended", "Complete", "Failed", "Reconciling", "Stalled", "CheckpointBroken", "Useful"]

REASONS: dict[str, tuple[str, ...]] = {type_: tuple(explained) for type_, explained in reasons.CONDITIONS.items()}
"""The reasons that each condition may have; Failed, Reconciling and Stalled have those of others besides."""
_Reason = RunningReason | SuspendedReason | CompleteReason | FailedReason | CheckpointBrokenReason | UsefulReason


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

    def message(self, type_: Type) -> str:
        """Return the message of a condition that holds; nothing of one that does not."""
        found = self._by_type.get(type_)
        return found.message if found and found.status == "True" else ""

    def set(self, type_: Type, holds: bool, reason: _Reason, message: str) -> None:
        """Set one condition; its time moves only when its value does.

        Raises
        ------
        ValueError
            Nobody could look the reason up.
        """
        if type_ not in ("Failed", "Reconciling", "Stalled") and reason not in REASONS[type_]:
            raise ValueError(f"condition {type_} has no reason {reason}")
        self._set(type_, holds, reason, message)

    def set_once(self, type_: Type, reason: _Reason, message: str) -> None:
        """Set one condition that holds for good; its time moves with its message, as the same happens once more."""
        if self.message(type_) != message:
            self._by_type.pop(type_, None)
        self.set(type_, True, reason, message)

    def _set(self, type_: Type, holds: bool, reason: str, message: str) -> None:
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

    def clear(self, type_: Type, reason: _Reason, message: str) -> None:
        """Make a condition false if it was ever set."""
        if type_ in self._by_type:
            self.set(type_, False, reason, message)

    def set_running(self, phase: JobPhase, holds: bool, reason: RunningReason, message: str) -> None:
        """Set Running, and Reconciling with it: true while pods should run, and not all do.

        The time of Running moves as well when a gang that was complete comes to lack pods: it is given up by that time.
        """
        old = self._by_type.get("Running")
        if old is not None and old.reason in OF_COMPLETE_GANGS and reason not in OF_COMPLETE_GANGS:
            del self._by_type["Running"]
        self.set("Running", holds, reason, message)
        if phase in ("Pending", "Running") and not holds:
            self.set("Reconciling", True, reason, message)
        else:
            self.clear("Reconciling", reason, message)

    def set_failed(self, reason: str, message: str) -> None:
        """Set Failed, and Stalled with it, with a reason that may be a trainer's."""
        word = reason if re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", reason) else "Failed"
        self._set("Failed", True, word, message)
        self._set("Stalled", True, word, message)

    def all(self) -> list[Condition]:
        """Return the conditions in a fixed order."""
        return [self._by_type[type_] for type_ in get_args(Type) if type_ in self._by_type]
