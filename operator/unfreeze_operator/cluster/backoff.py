"""How long to pause after failures in a row."""

from __future__ import annotations

import random
from collections.abc import Callable

BACKOFF_SECONDS = (0.5, 10.0)
"""First and longest pause of a watch."""


def spread() -> float:
    """Return a factor of pauses that keeps many clients from coming back at once."""
    return random.uniform(0.5, 1.5)  # noqa: S311 - no secret


def backoff(
    failures: int,
    error: Exception | None = None,
    *,
    bounds: tuple[float, float] = BACKOFF_SECONDS,
    jitter: Callable[[], float] = spread,
) -> float:
    """Return seconds: from the first bound doubling up to the second, with jitter, at least what the server asks for.

    Parameters
    ----------
    failures
        In a row, from 1.
    error
        The newest failure; its `retry_after`, where it has one, is the least pause.
    bounds
        First and longest pause in seconds.
    jitter
        Gives the factor of a pause.
    """
    first, longest = bounds
    pause = min(longest, first * 2 ** min(failures - 1, 32)) * jitter()
    return max(pause, getattr(error, "retry_after", None) or 0.0)
