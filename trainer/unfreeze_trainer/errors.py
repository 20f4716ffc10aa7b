"""Errors that end a job, told apart from those that are worth a retry."""

from __future__ import annotations

import errno
from collections.abc import Sequence

_PASSING = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENXIO, errno.ENODEV, errno.EBUSY),
        *(errno.ENOTCONN, errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ENETDOWN, errno.ENETUNREACH),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EAGAIN, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    }
)


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


def is_passing(error: BaseException) -> bool:
    """Return whether machine, network or volume are to blame for an error, so that another try may succeed."""
    return isinstance(error, OSError) and error.errno in _PASSING


def one_line(error: BaseException, most: int = 500) -> str:
    """Return type and text of an error of a library in a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:most]
