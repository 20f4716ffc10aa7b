"""Tables as text with separators: CSV, and the same with tabs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from unfreeze_trainer.data.columns import check_columns
from unfreeze_trainer.data.packed import open_bytes
from unfreeze_trainer.data.quotes import broken_quote
from unfreeze_trainer.data.suffixes import suffixes
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError, quoted

if TYPE_CHECKING:
    import pyarrow as pa

SEPARATED = {".csv": ",", ".tsv": "\t"}
_NAMES = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
_MAX_HEADER = 1 << 20
"""Bytes of a first line, as many as of any row."""


def read_delimited(path: str, columns: list[str], where: str, unread: Unread, *, head: bool) -> Iterator[pa.Table]:
    """Read all columns as text."""
    import pyarrow as pa
    from pyarrow import csv

    separator = SEPARATED[suffixes(path)[0]]
    bad: list[Any] = []

    def keep(row: Any) -> str:
        bad.append(row)
        return "skip"

    # Row numbers come only from the single-threaded reader; text is text, so that no label is read as a number.
    reading = csv.ReadOptions(use_threads=False)
    parsing = csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=keep)
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
    bad.clear()
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
        require_closed_quotes(path, rows + len(bad), where)
    for before, row in enumerate(bad):
        if head and unread.skip and row.number - 2 - before > rows:
            break  # the reader is a block ahead
        error = JobError(
            "InvalidData",
            f"{where}: row {row.number - 1} has {row.actual_columns} cells, the header"
            f" {row.expected_columns}: {quoted(repr(row.text[:120]))}; quote cells that hold {_NAMES[separator]}",
        )
        unread.add([row.number - 2], error)


def _require_header(path: str, where: str) -> None:
    with open_bytes(path, where) as file:
        first = file.readline(_MAX_HEADER)
        if len(first) == _MAX_HEADER:
            raise JobError("InvalidData", f"{where}: the header is longer than 1 MiB: is it the right file?")
        if not first.removeprefix(b"\xef\xbb\xbf").strip():
            raise JobError("InvalidData", f"{where}: the file is empty, or its first line is: a header is needed")


def _content(path: str, where: str, stack: ExitStack) -> Any:
    """Return what Arrow reads: a path, or the content of a compressed file."""
    return stack.enter_context(open_bytes(path, where)) if suffixes(path)[1] else path


def require_closed_quotes(path: str, rows: int, where: str) -> None:
    """Raise JobError InvalidData where a quote swallows the rows after it; so many were read, without the header."""
    if broken := broken_quote(path, rows, SEPARATED[suffixes(path)[0]], where):
        place = f"row {broken[0]}" if broken[0] else "the header"
        raise JobError(
            "InvalidData",
            f"{where}: {place}, on line {broken[1]}, has a quote that is not closed, or closed before the end of its cell:"
            " the rows after it would count as its text. Close it, or write quotes that belong to the text twice, in a"
            " quoted cell",
        )


def _require_separator(header: Sequence[str], where: str, separator: str) -> None:
    wanted = _NAMES[separator]
    for other, name in _NAMES.items():
        if len(header) == 1 and other in header[0] and other != separator:
            raise JobError(
                "InvalidData",
                f"{where}: the header {quoted(repr(header[0]))} has no {wanted[:-1]}; did you mean cells separated by {name}? A"
                f" {_suffix_of(separator)} file has {wanted}: save it with those, and quote cells that hold {wanted}",
            )


def _suffix_of(separator: str) -> str:
    return next(suffix for suffix, own in SEPARATED.items() if own == separator)
