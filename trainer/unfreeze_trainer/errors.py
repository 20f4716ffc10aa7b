"""Errors that end a job, told apart from those that are worth a retry."""

from __future__ import annotations

from collections.abc import Sequence


class JobError(Exception):
    """The job itself is wrong and will fail again however often it is tried: exit code 2, never retried.

    Parameters
    ----------
    reason
        One CamelCase word for status.failure.reason, like `InvalidData`.
    message
        What is wrong, where (field, file, row or column), and what to do.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def some_of(names: Sequence[str], most: int = 8) -> str:
    """Return names in a line, as many as a message bears."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
