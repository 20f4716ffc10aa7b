"""Quotes in CSV files that never close: whoever reads on takes all rows up to the next quote for one cell."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass

from unfreeze_trainer.data.packed import open_bytes

_CHUNK = 1 << 20
MAX_ROW = 2 << 20
"""Characters of a row that are held while its quotes are looked for: Arrow, which reads 1 MiB at a time, takes no row of more."""


@dataclass(frozen=True)
class Broken:
    """A row that a quote makes too long."""

    row: int
    """Counted from 1 without the header, which is row 0."""
    line: int
    """On which it begins, from 1."""
    too_long: bool = False
    """Whether it has more than MAX_ROW characters, so that nobody looked where, or whether, its quote closes."""
    lost: bool = True
    """Whether rows are lost: not where the cell goes on behind its quote and ends on the same line."""


def broken_quote(path: str, rows: int, separator: str = ",", where: str = "") -> Broken | None:
    """Return the row where a cell begins that a quote opens and does not close right, None where all do; first one that costs rows.

    Python's csv module, in its strict mode, says so; it is asked only where quotes do not come in pairs, where there
    are more lines than rows, or where a quote has text on both sides. No more than MAX_ROW characters are held.

    Parameters
    ----------
    rows
        How many were read from the file, without the header.
    separator
        Between cells.
    where
        What messages about compressed files start with.
    """
    quotes, lines, astray = _count(path, where, separator)
    if not quotes or (quotes % 2 == 0 and lines <= rows + 1 and not astray):
        return None
    within: Broken | None = None
    csv.field_size_limit(max(MAX_ROW, csv.field_size_limit()))  # it is the whole process's
    number, line = 0, 1
    with io.TextIOWrapper(open_bytes(path, where), encoding="utf-8-sig", errors="replace", newline="") as file:
        given = _Lines(file)
        while True:
            reader, before = csv.reader(given, strict=True, delimiter=separator), line - 1
            try:
                for cells in reader:
                    number, line = number + bool(cells), before + reader.line_num + 1
                    given.held = 0
            except _LongRowError:
                return Broken(number, line, too_long=True)
            except csv.Error as error:
                if before + reader.line_num > line or "end of data" in str(error):
                    return Broken(number, line)
                # text in quotes within a quoted cell, on one line: no row is lost
                within = within or Broken(number, line, lost=False)
                number, line, given.held = number + 1, line + 1, 0
            else:
                return within


def header_cells(path: str, separator: str, where: str) -> int:
    """Return how many cells the header of a file has; 0 where it cannot be told in MAX_ROW characters."""
    csv.field_size_limit(max(MAX_ROW, csv.field_size_limit()))  # it is the whole process's
    with io.TextIOWrapper(open_bytes(path, where), encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            return len(next(csv.reader(_Lines(file), delimiter=separator), ()))
        except (_LongRowError, csv.Error):
            return 0


class _LongRowError(Exception):
    """A row has more than MAX_ROW characters."""


class _Lines:
    """The lines of a file.

    Parameters
    ----------
    file
        Whose lines are kept as they end.
    """

    def __init__(self, file: io.TextIOWrapper) -> None:
        self._file = file
        self.held = 0
        """Characters of the row that is being read; whoever reads sets it to 0 after each."""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_ROW + 1)
        if not line:
            raise StopIteration
        self.held += len(line)
        if self.held > MAX_ROW:
            raise _LongRowError
        return line


def _count(path: str, where: str, separator: str) -> tuple[int, int, bool]:
    """Return how many quotes and lines there are in a file, and whether a quote has text on both sides."""
    text = rb'[^\n\r"%b]' % separator.encode()
    astray = re.compile(rb'"(?<=%b")(?=%b)' % (text, text))
    quotes, lines, last, found = 0, 0, b"", False
    with open_bytes(path, where) as file:
        while chunk := file.read(_CHUNK):
            quotes, lines = quotes + chunk.count(b'"'), lines + chunk.count(b"\n")
            found = found or astray.search(last[-2:] + chunk) is not None
            last = chunk
    return quotes, lines + (not last.endswith(b"\n")), found
