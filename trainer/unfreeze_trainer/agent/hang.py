"""When silent workers hang: the limit that the job gives, else one that follows the time its steps take. Pure."""

from __future__ import annotations

TRAINING_SECONDS = 600.0
"""The least derived limit between steps: how long a collective of NCCL waits for its other ranks by default."""
OTHER_SECONDS = 1800.0
"""The least derived limit of an evaluation or an export, whose length no earlier one foretells."""
TIMES_SLOWEST = 20.0
"""The derived limit in slowest steps so far."""
_SAME = 0.01  # seconds; times of a file, read as ages, differ in their last digits


class HangWatch:
    """Judges the silence of one pod's workers; times are in seconds since the epoch.

    Parameters
    ----------
    given
        runPolicy.hangTimeoutSeconds.
    """

    def __init__(self, given: float | None) -> None:
        self._given = given
        self._slowest = 0.0
        self._written = 0.0
        self._state = ""

    def news(self, written: float) -> bool:
        """Whether news of this time is not known yet; then `heard` wants to know of it."""
        return written > self._written + _SAME

    def heard(self, written: float, state: str, *, restarted: bool) -> None:
        """Take note of news: its time, what the workers do, and whether other workers do it than before."""
        if self._state == state == "Training" and not restarted:
            self._slowest = max(self._slowest, written - self._written)
        self._written, self._state = written, state

    @property
    def limit(self) -> float:
        """Seconds of silence that are a hang now."""
        if self._given is not None:
            return self._given
        least = TRAINING_SECONDS if self._state == "Training" else OTHER_SECONDS
        return max(least, TIMES_SLOWEST * self._slowest)
