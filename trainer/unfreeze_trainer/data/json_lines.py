"""Tables as JSON lines: an object on each line."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from unfreeze_trainer.data.columns import check_columns
from unfreeze_trainer.data.packed import open_bytes
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError, quoted

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 65536
CHUNK_CHARACTERS = 16 << 20
"""What a part has at most, but for its last row."""
HEAD_ROWS = 1000
"""Rows that are read where the first ones will do."""
MAX_LINE = 64 << 20
"""Characters of the longest line."""
Cells = Literal["Numbers", "Lists", "Nested"]
"""What cells may hold in JSON lines: numbers of one type where whole ones and others follow each other; lists of values of one
type; anything, which is given as JSON again."""
NONE: Mapping[str, Cells | None] = MappingProxyType({})


def read_json_lines(
    path: str, columns: list[str], where: str, unread: Unread, *, head: bool, kinds: Mapping[str, Cells | None] = NONE
) -> Iterator[pa.Table]:
    """Read line by line: Arrow's reader is faster, but cannot say which line is wrong."""
    import pyarrow as pa

    wanted = list(dict.fromkeys(columns))
    cells: dict[str, list[Any]] = {name: [] for name in wanted}
    types: dict[str, type] = {}
    number = held = 0
    with open_lines(path, where) as file:
        for number, line in enumerate(_bounded(file, where), start=1):
            try:
                record = _json_record(line, number, where)
                place = f"{where}: line {number}"
                values = [json_cell(record, name, types, place, kinds.get(name)) for name in wanted]
            except JobError as error:
                unread.add([number - 1], error)
            else:
                for name, value in zip(wanted, values, strict=True):
                    cells[name].append(value)
            held += len(line)
            full = number % (HEAD_ROWS if head else CHUNK_ROWS) == 0
            if full or held >= CHUNK_CHARACTERS:
                yield pa.table(cells)
                cells, held = {name: [] for name in wanted}, 0
            if full and head:
                break
    yield pa.table(cells)
    if not number:
        raise JobError("InvalidData", f"{where}: the file is empty")


def open_lines(path: str, where: str, errors: str = "strict") -> io.TextIOWrapper:
    """Open a file of lines, unpacked where it is compressed; JobError as of `open_bytes`."""
    return io.TextIOWrapper(open_bytes(path, where), encoding="utf-8-sig", errors=errors)


def _bounded(file: io.TextIOWrapper, where: str) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE and not line.endswith("\n"):
            raise JobError(
                "InvalidData",
                f"{where}: line {number} is longer than {MAX_LINE >> 20} Mi characters; write one object a line",
            )
        yield line


def json_cell(record: dict[str, Any], name: str, types: dict[str, type], where: str, cells: Cells | None) -> Any:
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
