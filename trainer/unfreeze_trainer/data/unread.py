"""Rows that cannot be read: the first one ends the job, or they are left out and counted (data.onError)."""

from __future__ import annotations

import logging
from collections.abc import Collection

import numpy as np

from unfreeze_trainer.errors import JobError

log = logging.getLogger(__name__)

MAX_ERRORS = 20
"""Errors about rows that are left out that are kept: as many as people read."""


class FileError(ValueError):
    """A file that cannot be read; the message says why, without its name, for that of a JobError."""


class Unread:
    """Collects the rows of one source that cannot be read.

    Parameters
    ----------
    where
        What messages start with: field and source.
    skip
        Whether they are left out; otherwise the first one is raised.
    """

    def __init__(self, where: str, *, skip: bool) -> None:
        self.skip = skip
        self._where = where
        self._marks = bytearray()
        """A bit for each row: files of a hundred million rows may have as many that are broken."""
        self._count = 0
        self.errors: list[JobError] = []
        """About the first rows that cannot be read, where they are left out."""

    def __len__(self) -> int:
        return self._count

    def add(self, rows: Collection[int], error: JobError) -> None:
        """Note rows, as indices into the source; the error is about all of them."""
        if not rows:
            return
        if not self.skip:
            raise error
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(error)
        if (bytes_needed := (max(rows) >> 3) + 1) > len(self._marks):
            self._marks.extend(bytes(bytes_needed - len(self._marks)))
        for row in rows:
            bit = 1 << (row & 7)
            if not self._marks[row >> 3] & bit:
                self._marks[row >> 3] |= bit
                self._count += 1

    def others(self, rows: int) -> np.ndarray:
        """Return those of so many rows that can be read, int64."""
        kept = np.ones(rows, dtype=bool)
        marked = np.unpackbits(np.frombuffer(self._marks, np.uint8), bitorder="little")[:rows]
        kept[: len(marked)] = marked == 0
        return np.flatnonzero(kept)

    def check(self, rows: int, *, before: int = 0) -> None:
        """Say how many rows are left out.

        Parameters
        ----------
        rows
            Of the source.
        before
            How many of them are left out already.

        Raises
        ------
        JobError
            InvalidData: more than half of them.
        """
        if not self.errors:
            return
        if 2 * (before + len(self)) > rows:
            raise too_many(self._where, before + len(self), rows, self.errors[0])
        log.warning(
            "%s: %d of %d rows are left out, like this one: %s", self._where, len(self), rows, self.errors[0].message
        )


class UnreadOfShard(Unread):
    """Collects the rows of one of a source's files, for that file and for the source.

    Parameters
    ----------
    whole
        Of the source.
    where
        What messages start with: field, source and file.
    before
        Rows of the files before it.
    """

    def __init__(self, whole: Unread, where: str, before: int) -> None:
        super().__init__(where, skip=whole.skip)
        self._whole, self._before = whole, before

    def add(self, rows: Collection[int], error: JobError) -> None:
        """Note rows, as indices into the file; the error is about all of them."""
        super().add(rows, error)
        self._whole.add([row + self._before for row in rows], error)


def too_many(where: str, broken: int, rows: int, first: JobError) -> JobError:
    """Return the error about a source of which more than half cannot be read."""
    return JobError(
        "InvalidData",
        f"{where}: {broken} of {rows} rows cannot be read, and spec.data.onError Skip leaves out half of them at most: is it"
        f" the right source? One of them: {first.marked}",
    )
