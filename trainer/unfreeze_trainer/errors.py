"""Errors that end a job, and those that are worth a retry."""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from unfreeze_api.contracts.reasons import TrainerReason

SHOW_VALUES_ENV = "UNFREEZE_SHOW_VALUES"
"""Environment variable that is set where messages outside of the pod's log may quote rows of the data."""
HIDDEN = "[in the pod's log]"
"""What stands in the place of a quote elsewhere."""
_OPEN, _CLOSE = "\ue000", "\ue001"  # of a private area: no text has a meaning for them
_QUOTE = re.compile(f"{_OPEN}.*?{_CLOSE}", re.DOTALL)
_DATA = tuple(str(Path(__file__).parent / name) for name in ("data", "objectives/targets"))
"""Where rows of the data are read."""
_SHOWN_ROWS = 5
"""Rows that a message lists."""


def quoted(content: object) -> str:
    """Mark a part of a JobError's message that comes from a row of the data."""
    return f"{_OPEN}{unmarked(str(content))}{_CLOSE}"


def unmarked(text: str) -> str:
    """Return a message without marks, for the pod's log."""
    return text.replace(_OPEN, "").replace(_CLOSE, "")


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
        That of status.failure, like `InvalidData`.
    message
        What is wrong, where (field, file, row or column), and what to do. Parts that `quoted` has marked are for the pod's
        log alone.
    """

    def __init__(self, reason: TrainerReason, message: str) -> None:
        self.reason = reason
        self.marked = message
        """The message with its marks, for that of another JobError."""
        self.message = unmarked(message)
        self.public = _QUOTE.sub(HIDDEN, message)
        """The message for status, Events and others' logs: without what `quoted` has marked."""
        super().__init__(self.message)


class RetryError(Exception):
    """Machine or network are to blame, and another try may succeed: exit code 1, retried within backoffLimit.

    Parameters
    ----------
    reason
        That of status.failure, like `HubUnreachable`.
    message
        What happened, and what to do if it stays so.
    """

    def __init__(self, reason: TrainerReason, message: str) -> None:
        self.reason, self.message = reason, message
        super().__init__(message)


def told_of(error: BaseException) -> tuple[str, str]:
    """Return message and traceback of an error as the agent tells them: what comes from rows of the data is left out.

    Row and column numbers stay. What libraries say of an error that came up in reading data may quote these: then its type
    and the places are shown. With SHOW_VALUES_ENV everything is.
    """
    whole = error.message if isinstance(error, JobError | RetryError) else f"{type(error).__name__}: {error}"
    tail = "".join(traceback.format_exception(error))
    if os.environ.get(SHOW_VALUES_ENV):
        return whole, tail
    public = error.public if isinstance(error, JobError) else whole
    if public == whole and not _of_data(error):
        return whole, tail
    if not isinstance(error, JobError):
        public = f"{type(error).__name__}: {HIDDEN}"
    return public, "".join(traceback.format_tb(error.__traceback__)) + public


def _of_data(error: BaseException) -> bool:
    """Return whether an error came up in reading data, so that what libraries say of it may quote rows."""
    return any(name.startswith(_DATA) for name in _files(error))


def _files(error: BaseException) -> Iterator[str]:
    """Yield the source files that an error, and those that led to it, came through."""
    seen: list[BaseException] = [error]
    for one in seen:
        yield from (frame.f_code.co_filename for frame, _ in traceback.walk_tb(one.__traceback__))
        seen += [other for other in (one.__cause__, one.__context__) if other is not None and other not in seen]


def some_of(names: Sequence[str], most: int = 8) -> str:
    """Return names in a line, as many as a message bears."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def some_rows(rows: Sequence[int]) -> str:
    """Return row numbers for a message: `row 3`, `rows 3, 5, 8 and 12 more`. `rows` are indices from 0."""
    shown = ", ".join(str(row + 1) for row in rows[:_SHOWN_ROWS])
    more = f" and {len(rows) - _SHOWN_ROWS} more" if len(rows) > _SHOWN_ROWS else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}"


def is_passing(error: BaseException) -> bool:
    """Return whether machine, network or volume are to blame for an error, so that another try may succeed."""
    return isinstance(error, OSError) and error.errno in _PASSING


def one_line(error: BaseException, most: int = 500) -> str:
    """Return type and text of an error of a library in a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:most]


def one_line_told(error: BaseException) -> str:
    """Return `one_line` for a JobError's message: marked as a quote where the error came up in reading data."""
    return quoted(one_line(error)) if _of_data(error) else one_line(error)
