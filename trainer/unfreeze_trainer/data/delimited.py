"""Tables as text with separators: CSV, and the same with tabs."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from unfreeze_trainer.data.columns import LINES_BEFORE, check_columns
from unfreeze_trainer.data.packed import open_bytes
from unfreeze_trainer.data.quotes import broken_quote, header_cells
from unfreeze_trainer.data.suffixes import suffixes
from unfreeze_trainer.data.unread import MAX_ERRORS, Unread
from unfreeze_trainer.errors import JobError, quoted

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

SEPARATED = {".csv": ",", ".tsv": "\t"}
_NAMES = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
MAX_COLUMNS = 1 << 14
"""Of a file, as in a spreadsheet: Arrow takes 8 KB for each."""
_TWICE = 'Write quotes that belong to the text twice, in a quoted cell: "He said ""no"" to me"'
_MAX_HEADER = 1 << 20
"""Bytes of a first line, as many as of any row."""


def read_delimited(path: str, columns: list[str], where: str, unread: Unread, *, head: bool) -> Iterator[pa.Table]:
    """Read all columns as text."""
    import pyarrow as pa
    from pyarrow import csv

    separator = SEPARATED[suffixes(path)[0]]
    bad = _BadRows(where, separator)
    # Row numbers come only from the single-threaded reader; text is text, so that no label is read as a number.
    reading = csv.ReadOptions(use_threads=False)
    parsing = csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=bad.add)
    _require_header(path, where)
    with ExitStack() as stack:
        header = stack.enter_context(
            csv.open_csv(
                _content(path, where, stack),
                read_options=reading,
                parse_options=parsing,
                convert_options=csv.ConvertOptions(check_utf8=False),
            )
        )
        if any("\n" in name for name in header.schema.names):
            require_closed_quotes(path, 0, where)
        _require_separator(header.schema.names, where, separator)
        check_columns(columns, header.schema.names, where, first_row=True)
    bad = _BadRows(where, separator, all_of_them=unread.skip, unread=unread if unread.skip and not head else None)
    parsing.invalid_row_handler = bad.add
    wanted = dict.fromkeys(columns)  # one column may serve twice
    converting = csv.ConvertOptions(
        include_columns=list(wanted), column_types={name: pa.string() for name in wanted}, strings_can_be_null=False
    )
    rows = 0
    with ExitStack() as stack:
        options = {"read_options": reading, "parse_options": parsing, "convert_options": converting}
        batches = stack.enter_context(csv.open_csv(_content(path, where, stack), **options))
        for batch in batches:
            rows += batch.num_rows
            yield pa.Table.from_batches([batch])
            if head:
                break
        if not rows:
            yield batches.schema.empty_table()
    if not head:
        require_closed_quotes(path, rows + bad.count, where)
    for before, row in enumerate(bad.numbers):
        if head and unread.skip and row - before > rows:
            break  # the reader is a block ahead
        unread.add([row], bad.errors[min(before, len(bad.errors) - 1)])


class _BadRows:
    """Rows with too few or too many cells.

    Parameters
    ----------
    where, separator
        What messages start with, and what stands between cells.
    all_of_them
        Keep the number of each, where the first rows of a file alone are read; else of the first one.
    unread
        Takes each of them as it comes, so that of a large file none is kept here.
    """

    def __init__(self, where: str, separator: str, *, all_of_them: bool = False, unread: Unread | None = None) -> None:
        self._where, self._separator, self._unread = where, separator, unread
        self._all_of_them = all_of_them
        self.count = 0
        self.numbers = array("q")
        """Indices of those that are kept."""
        self.errors: list[JobError] = []
        """About the first of all."""

    def add(self, row: Any) -> str:
        """Note a row, by its line in Arrow's count, where the header is 1; return what Arrow is to do about it."""
        self.count += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(_wrong_cells(row, self._where, self._separator))
        if self._unread is not None:
            self._unread.add([row.number - 2], self.errors[-1])
        elif self._all_of_them or not self.numbers:
            self.numbers.append(row.number - 2)
        return "skip"


def _wrong_cells(row: Any, where: str, separator: str) -> JobError:
    behind = ". Quotes in them are written twice, and not behind a backslash: in Spark by option('escape', '\"')"
    more = behind if '\\"' in row.text else f"; {LINES_BEFORE}" * (row.expected_columns == 1)
    return JobError(
        "InvalidData",
        f"{where}: row {row.number - 1} has {row.actual_columns} cells, the header"
        f" {row.expected_columns}: {quoted(repr(row.text[:120]))}; quote cells that hold {_NAMES[separator]}{more}",
    )


def _require_header(path: str, where: str) -> None:
    with open_bytes(path, where) as file:
        first = file.readline(_MAX_HEADER)
        if len(first) == _MAX_HEADER:
            raise JobError("InvalidData", f"{where}: the header is longer than 1 MiB: is it the right file?")
        if not first.removeprefix(b"\xef\xbb\xbf").strip():
            raise JobError(
                "InvalidData",
                f"{where}: the file is empty, or its first line is: a header is needed; remove a file without rows",
            )
    if (cells := header_cells(path, SEPARATED[suffixes(path)[0]], where)) > MAX_COLUMNS:
        raise JobError(
            "InvalidData",
            f"{where}: the header has {cells:,} columns, and {MAX_COLUMNS:,} are read at most; leave out those that no task"
            " needs, or save it as Parquet",
        )


def _content(path: str, where: str, stack: ExitStack) -> Any:
    """Return what Arrow reads: a path, or the content of a compressed file."""
    return stack.enter_context(open_bytes(path, where)) if suffixes(path)[1] else path


def require_closed_quotes(path: str, rows: int, where: str) -> None:
    """Raise JobError InvalidData where a quote swallows the rows after it; so many were read, without the header.

    Of one that swallows none, but is no part of its text any more, the log has a warning.
    """
    separator = SEPARATED[suffixes(path)[0]]
    if broken := broken_quote(path, rows, separator, where):
        place = f"{where}: {f'row {broken.row}' if broken.row else 'the header'}, on line {broken.line},"
        if not broken.lost:
            log.warning(
                "%s has a cell that begins with a quote, and goes on where that is closed: quotes are lost there. %s",
                place,
                _TWICE,
            )
            return
        if broken.too_long:
            raise JobError(
                "InvalidData",
                f"{place} is longer than 1 MiB: most likely it has a quote that is not closed. Close it; if the row is meant"
                " so, shorten its texts, or save them as Parquet",
            )
        raise JobError(
            "InvalidData",
            f"{place} has a quote that is not closed, or closed before the end of its cell: the rows after it would count as"
            " its text. Close it, or write quotes that belong to the text twice, in a quoted cell"
            + _PLAIN
            * (separator == "\t"),
        )


_PLAIN = (
    ". Where quotes are signs like others, as in Common Voice's tables, pandas writes the file so: pandas.read_csv(FILE, sep='\\t',"
    " quoting=3).to_csv(NEW, sep='\\t', index=False)"
)


def _require_separator(header: Sequence[str], where: str, separator: str) -> None:
    wanted = _NAMES[separator]
    for other, name in _NAMES.items():
        if len(header) == 1 and other in header[0] and other != separator:
            raise JobError(
                "InvalidData",
                f"{where}: the header {quoted(repr(header[0]))} has no {wanted[:-1]}; did you mean cells separated by {name}? A"
                f" {_suffix_of(separator)} file has {wanted}: save it with those, and quote cells that hold {wanted} (docs/conversions.md)",
            )


def _suffix_of(separator: str) -> str:
    return next(suffix for suffix, own in SEPARATED.items() if own == separator)
