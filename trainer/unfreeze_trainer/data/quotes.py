"""Quotes in CSV files that never close: whoever reads on takes all rows up to the next quote for one cell."""

from __future__ import annotations

import csv
import io
import sys

from unfreeze_trainer.data.packed import open_bytes

_CHUNK = 1 << 20


def broken_quote(path: str, rows: int, separator: str = ",", where: str = "") -> tuple[int, int] | None:
    """Return row and line where a cell begins that a quote opens and does not close right, None where all do.

    Python's csv module, in its strict mode, says so; it is asked only where quotes do not come in pairs, or where there
    are more lines than rows. A quote that goes astray within one line costs no rows. Rows are counted from 1 without the header, which is row 0; lines from 1.

    Parameters
    ----------
    rows
        How many were read from the file, without the header.
    separator
        Between cells.
    where
        What messages about compressed files start with.
    """
    quotes, lines = _count(path, where)
    if not quotes or (quotes % 2 == 0 and lines <= rows + 1):
        return None
    csv.field_size_limit(sys.maxsize)
    number, line = 0, 1
    with io.TextIOWrapper(open_bytes(path, where), encoding="utf-8-sig", errors="replace", newline="") as file:
        while True:
            reader, before = csv.reader(file, strict=True, delimiter=separator), line - 1
            try:
                for cells in reader:
                    number, line = number + bool(cells), before + reader.line_num + 1
            except csv.Error as error:
                if before + reader.line_num > line or "end of data" in str(error):
                    return number, line
                number, line = number + 1, line + 1  # text in quotes within a quoted cell, on one line: no row is lost
            else:
                return None


def _count(path: str, where: str) -> tuple[int, int]:
    """Return how many quotes and lines there are in a file."""
    quotes, lines, last = 0, 0, b""
    with open_bytes(path, where) as file:
        while chunk := file.read(_CHUNK):
            quotes, lines, last = quotes + chunk.count(b'"'), lines + chunk.count(b"\n"), chunk
    return quotes, lines + (not last.endswith(b"\n"))
