"""Tables: CSV, the same with tabs, JSON lines and Parquet, by suffix, with errors that name file, row and column.

Only the columns that are asked for are kept, as Arrow arrays: about one byte per character, whatever the file's size.
Rows are counted from 1; a CSV's header is not counted.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from unfreeze_api.apiserver.likely import likeliest
from unfreeze_api.commands import explained
from unfreeze_trainer.data.quotes import broken_quote
from unfreeze_trainer.data.shards import is_pattern, shards
from unfreeze_trainer.data.unread import Unread, UnreadOfShard
from unfreeze_trainer.errors import JobError, is_passing, quoted
from unfreeze_trainer.sources.closed import Closed
from unfreeze_trainer.sources.pointers import stand_in_at

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 65536
HEAD_ROWS = 1000
Cells = Literal["Numbers", "Lists", "Nested"]
"""What cells may hold in JSON lines: numbers of one type where whole ones and others follow each other; lists of values of one
type; anything, which is given as JSON again."""
NONE: Mapping[str, Cells | None] = MappingProxyType({})
"""Rows of JSON lines and Parquet that are read where the first ones will do; of CSV it is a block."""


def read_table(
    path: str,
    columns: Sequence[str],
    where: str,
    unread: Unread | None = None,
    *,
    head: bool = False,
    kinds: Mapping[str, Cells | None] = NONE,
) -> pa.Table:
    """Read some columns of a file, or of several that fit a pattern, one after another in the order of their names.

    Parameters
    ----------
    path
        A file that ends in .csv, .tsv, .jsonl, .ndjson or .parquet, or a pattern of such.
    columns
        Names of the columns that are needed.
    where
        What messages start with: field and source.
    unread
        Takes the rows that cannot be read; without it the first one is raised.
    head
        Read the first rows alone, as many as are read at a time.
    kinds
        What other columns than those of single texts, whole numbers or booleans hold.

    Raises
    ------
    JobError
        InvalidData: not found, unknown suffix, missing column, or the row that cannot be read.
    """
    unread = Unread(where, skip=False) if unread is None else unread
    if not is_pattern(path):
        return _read_file(path, columns, where, unread, head=head, kinds=kinds)
    import pyarrow as pa

    tables, before = [], 0
    for file in shards(path, where):
        place = f"{where}: {Path(file).name}"
        part = UnreadOfShard(unread, place, before)
        tables.append(_read_file(file, columns, place, part, head=head, kinds=kinds))
        before += tables[-1].num_rows + len(part)
        if head:
            break
        try:
            pa.unify_schemas([table.schema for table in tables if table.num_rows])
        except pa.ArrowException as error:
            raise JobError(
                "InvalidData", f"{place}: its columns have other types than those of the files before: {quoted(error)}"
            ) from error
    return pa.concat_tables([table for table in tables if table.num_rows] or tables[:1], promote_options="default")


def _read_file(
    path: str,
    columns: Sequence[str],
    where: str,
    unread: Unread,
    *,
    head: bool,
    kinds: Mapping[str, Cells | None],
) -> pa.Table:
    """Read some columns of one file."""
    suffix = Path(path).suffix.lower()
    reader = _READERS.get(suffix)
    if reader is None:
        raise JobError(
            "InvalidData",
            f"{where}: files end in {', '.join(_READERS)}, not {suffix or 'nothing'}; convert or rename it",
        )
    import pyarrow as pa

    try:
        _require_file(Path(path), where)
        options = {"kinds": kinds} if reader is _read_json_lines else {}  # other formats say it themselves
        return reader(path, list(columns), where, unread, head=head, **options)
    except UnicodeDecodeError as error:
        raise JobError("InvalidData", f"{where}: not UTF-8: {error}; convert the file to UTF-8") from error
    except PermissionError as error:
        raise JobError("InvalidData", f"{where}: cannot be read: {explained(error)}") from error
    except (pa.ArrowException, OSError) as error:
        if is_passing(error) or isinstance(error, MemoryError):
            raise
        if suffix in _SEPARATED:
            _require_closed_quotes(path, 0, where, _SEPARATED[suffix])
        if "straddl" in str(error):
            raise JobError(
                "InvalidData", f"{where}: a row is longer than 1 MiB; shorten its texts, or save them as Parquet"
            ) from error
        raise JobError("InvalidData", f"{where}: cannot be read as {suffix}: {quoted(error)}") from error


def _require_file(path: Path, where: str) -> None:
    real = Path(os.path.realpath(path))
    if not Closed(real.parent, where, "InvalidData").exists(real.name):
        what = "this is a folder, and tables are files" if path.is_dir() else "no such file"
        raise JobError("InvalidData", f"{where}: {what}: {path}; check claim and path")
    if instead := stand_in_at(path):
        raise JobError("InvalidData", f"{where}: {path} {instead}")


def check_columns(columns: Sequence[str], present: Sequence[str], where: str, *, first_row: bool = False) -> None:
    """Raise JobError when a column is missing, with those that exist and the likeliest one meant, or stands there twice.

    Parameters
    ----------
    first_row
        Whether the names are a file's first row, which is one of data where the header was left out.
    """
    for column in columns:
        if present.count(column) > 1:
            raise JobError(
                "InvalidData",
                f"{where}: {present.count(column)} columns are called {column!r}; rename all of them but one",
            )
        if column not in present:
            likely = likeliest(column, present)
            hint = f"; did you mean {likely!r}?" if likely else "."
            names = ", ".join(repr(name) for name in present[:50]) or "none"
            raise JobError(
                "InvalidData",
                f"{where}: no column {column!r}{hint} The columns are {quoted(names) if first_row else names}; name the right one in"
                " spec.data.<part>.columns",
            )


def _read_csv(
    path: str,
    columns: list[str],
    where: str,
    unread: Unread,
    *,
    head: bool,
) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    separator = _SEPARATED[Path(path).suffix.lower()]
    bad: list[Any] = []

    def keep(row: Any) -> str:
        bad.append(row)
        return "skip"

    # Row numbers come only from the single-threaded reader; text is text, so that no label is read as a number.
    reading = csv.ReadOptions(use_threads=False)
    parsing = csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=keep)
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        if not file.readline().strip():
            raise JobError("InvalidData", f"{where}: the file is empty, or its first line is: a header is needed")
    with csv.open_csv(
        path, read_options=reading, parse_options=parsing, convert_options=csv.ConvertOptions(check_utf8=False)
    ) as header:
        if any("\n" in name for name in header.schema.names):
            _require_closed_quotes(path, 0, where, separator)
        _require_separator(header.schema.names, where, separator)
        check_columns(columns, header.schema.names, where, first_row=True)
    bad.clear()
    wanted = dict.fromkeys(columns)  # one column may serve twice
    converting = csv.ConvertOptions(
        include_columns=list(wanted), column_types={name: pa.string() for name in wanted}, strings_can_be_null=False
    )
    read = _first_batch if head else csv.read_csv
    table = read(path, read_options=reading, parse_options=parsing, convert_options=converting)
    if not head:
        _require_closed_quotes(path, table.num_rows + len(bad), where, separator)
    for before, row in enumerate(bad):
        if head and unread.skip and row.number - 2 - before > table.num_rows:
            break  # the reader is a block ahead
        error = JobError(
            "InvalidData",
            f"{where}: row {row.number - 1} has {row.actual_columns} cells, the header"
            f" {row.expected_columns}: {quoted(repr(row.text[:120]))}; quote cells that hold {_NAMES[separator]}",
        )
        unread.add([row.number - 2], error)
    return table


def _require_closed_quotes(path: str, rows: int, where: str, separator: str) -> None:
    if broken := broken_quote(path, rows, separator):
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
    return next(suffix for suffix, own in _SEPARATED.items() if own == separator)


_SEPARATED = {".csv": ",", ".tsv": "\t"}
_NAMES = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}


def _first_batch(path: str, **options: Any) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    with csv.open_csv(path, **options) as rows:
        return pa.Table.from_batches(itertools.islice(rows, 1), rows.schema)


def _read_json_lines(
    path: str,
    columns: list[str],
    where: str,
    unread: Unread,
    *,
    head: bool,
    kinds: Mapping[str, Cells | None] = NONE,
) -> pa.Table:
    """Read line by line: Arrow's reader is faster, but cannot say which line is wrong."""
    import pyarrow as pa

    wanted = list(dict.fromkeys(columns))
    chunks: list[pa.Table] = []
    cells: dict[str, list[Any]] = {name: [] for name in wanted}
    types: dict[str, type] = {}
    number = 0
    with Path(path).open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = _json_record(line, number, where)
                place = f"{where}: line {number}"
                values = [_json_cell(record, name, types, place, kinds.get(name)) for name in wanted]
            except JobError as error:
                unread.add([number - 1], error)
            else:
                for name, value in zip(wanted, values, strict=True):
                    cells[name].append(value)
            if number % (HEAD_ROWS if head else CHUNK_ROWS) == 0:
                chunks.append(pa.table(cells))
                cells = {name: [] for name in wanted}
                if head:
                    break
    chunks.append(pa.table(cells))
    if not number:
        raise JobError("InvalidData", f"{where}: the file is empty")
    return pa.concat_tables(chunks, promote_options="default")


def _json_cell(record: dict[str, Any], name: str, types: dict[str, type], where: str, cells: Cells | None) -> Any:
    """Return a value of a line; `types` are those of the lines before."""
    if name not in record:
        check_columns([name], list(record), where)
    value = record[name]
    if value is None:
        return None
    place = f"{where}, column {name!r}"
    if cells == "Nested":
        value = json.dumps(value, ensure_ascii=False)
    elif cells == "Numbers" and type(value) is int:
        value = float(value) if value.bit_length() <= _FLOAT_BITS else math.inf
    elif cells == "Lists" and type(value) is list and types.get(name, list) is list:
        types[name] = list
        return [_json_value(item, f"{name}[]", types, f"{place} has") for item in value]
    return _json_value(value, name, types, f"{place} is")


def _json_value(value: Any, key: str, types: dict[str, type], where: str) -> Any:
    """Return a value; `types` has that of those before, of a column or of its lists, under a key."""
    kind = types.get(key, type(value))
    if type(value) is not kind or kind not in (str, int, float, bool):
        more = (
            ". A list of labels needs a task with labels Multi"
            if isinstance(value, list) and not key.endswith("[]")
            else ""
        )
        before = f" where lines before have a {kind.__name__}" if key in types else ""
        raise JobError(
            "InvalidData",
            f"{where} {quoted(json.dumps(value)[:60])}, a {type(value).__name__}{before}; use one type (text, whole numbers or"
            f" booleans){more}",
        )
    try:
        if isinstance(value, str):
            value.encode()  # escapes may be halves of a character
        elif isinstance(value, int):
            value.to_bytes(8, signed=True)
    except (UnicodeEncodeError, OverflowError) as error:
        raise JobError(
            "InvalidData",
            f"{where} {quoted(json.dumps(value)[:60])}, which is neither text of whole characters nor a"
            " number of 64 bits; correct or remove it",
        ) from error
    types[key] = kind
    return value


_FLOAT_BITS = 1023
"""Of whole numbers that have a float of about their size."""


def _json_record(line: str, number: int, where: str) -> dict[str, Any]:
    if not line.strip():
        raise JobError("InvalidData", f"{where}: line {number} is empty; remove it")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise JobError(
            "InvalidData", f"{where}: line {number} is not JSON: {error}: {quoted(repr(line.strip()[:120]))}"
        ) from error
    if not isinstance(record, dict):
        raise JobError("InvalidData", f"{where}: line {number} is no JSON object: {quoted(repr(line.strip()[:120]))}")
    return record


def _read_parquet(
    path: str,
    columns: list[str],
    where: str,
    unread: Unread,  # noqa: ARG001 - all or nothing
    *,
    head: bool,
) -> pa.Table:
    import pyarrow as pa
    from pyarrow import parquet

    wanted = list(dict.fromkeys(columns))
    with parquet.ParquetFile(path) as file:
        check_columns(columns, file.schema_arrow.names, where)
        first = next(file.iter_batches(batch_size=HEAD_ROWS, columns=wanted), None) if head else None
        table = file.read(columns=wanted) if first is None else pa.Table.from_batches([first])
    return table.cast(pa.schema([field.with_type(_plain(field.type)) for field in table.schema]))


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type whose cells are the same and which Arrow's functions take: no views, no dictionaries in lists."""
    import pyarrow as pa

    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_dictionary(kind):
        return kind if _plain(kind.value_type) == kind.value_type else _plain(kind.value_type)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not (is_list or pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)):
        return kind
    inner = _plain(kind.value_type.value_type if pa.types.is_dictionary(kind.value_type) else kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner, kind.list_size)
    # A view with offsets of as many bits as the list's is not cast where a list is missing.
    small = pa.types.is_list(kind) or pa.types.is_large_list_view(kind)
    return pa.list_(inner) if small else pa.large_list(inner)


_READERS: dict[str, Callable[..., pa.Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
SUFFIXES = tuple(_READERS)
"""Of the files that are read."""
