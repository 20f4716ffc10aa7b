"""Tables as JSON: an object on each line, or a list of objects."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from unfreeze_trainer.data.columns import check_columns
from unfreeze_trainer.data.json_items import Noun, open_items
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError, quoted

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 65536
CHUNK_CHARACTERS = 16 << 20
"""What a part has at most, but for its last row."""
HEAD_ROWS = 1000
"""Rows that are read where the first ones will do."""
Cells = Literal["Numbers", "Lists", "One", "Nested", "Optional", "Any"]
"""What cells may hold in JSON lines: numbers of one type where whole ones and others follow each other; lists of values of one
type; single values, also alone in a list; anything, which is given as JSON again; single values, null in lines without the key, which some line has; anything, as JSON,
in any line."""
MAY_LACK = ("Optional", "Any")
"""Those whose keys not every line has."""
NONE: Mapping[str, Cells | None] = MappingProxyType({})


def read_json_lines(
    path: str, columns: list[str], where: str, unread: Unread, *, head: bool, kinds: Mapping[str, Cells | None] = NONE
) -> Iterator[pa.Table]:
    """Read row by row: Arrow's reader is faster, but cannot say which line is wrong. JobError InvalidData names it."""
    import pyarrow as pa

    wanted = list(dict.fromkeys(columns))
    cells: dict[str, list[Any]] = {name: [] for name in wanted}
    types: dict[str, type] = {}
    optional, present = "Optional" in kinds.values(), dict[str, None]()
    number = held = 0
    with open_items(path, where) as (noun, items):
        for number, line in enumerate(items, start=1):
            try:
                place = f"{where}: {noun} {number}"
                record = _json_record(line, noun, place)
                values = [json_cell(record, name, types, place, kinds.get(name)) for name in wanted]
            except JobError as error:
                unread.add([number - 1], error)
            else:
                if optional:
                    present |= dict.fromkeys(record)
                for name, value in zip(wanted, values, strict=True):
                    cells[name].append(value)
            held += len(line)
            full = number % (HEAD_ROWS if head else CHUNK_ROWS) == 0
            if full or held >= CHUNK_CHARACTERS:
                yield pa.table(cells)
                cells, held = {name: [] for name in wanted}, 0
            if full and head:
                break
        else:
            if present:
                check_columns(wanted, list(present), where)
    yield pa.table(cells)
    if not number:
        raise JobError("InvalidData", f"{where}: the {'file' if noun == 'line' else 'list'} is empty")


def json_cell(record: dict[str, Any], name: str, types: dict[str, type], where: str, cells: Cells | None) -> Any:
    """Return a value of a line; `types` are those of the lines before."""
    if name not in record and cells not in MAY_LACK:
        if said := of_one_object(record):
            raise JobError("InvalidData", f"{where}: {said}")
        check_columns([name], list(record), where, more=_rows_within(record) if where.endswith(": line 1") else "")
    value = record.get(name)
    if value is None:
        return None
    place = f"{where}, column {name!r}"
    if cells == "One" and isinstance(value, list) and len(value) == 1 and not isinstance(value[0], list | dict):
        [value] = value
        if value is None:
            return None
    if cells in ("Nested", "Any"):
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
            ". A list of labels needs a task with labels Multi, of several texts each a row of its own"
            if isinstance(value, list) and not key.endswith("[]")
            else ""
        )
        if isinstance(value, dict):
            more = (
                '. Rows are objects of single values: pandas writes these with orient="records", and json_normalize makes columns of what is'
                " within an object"
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


def of_one_object(record: Mapping[str, Any]) -> str:
    """Return what to do about a file of one object, whose values may be JSON, where it is in the form of COCO or SQuAD; else nothing."""
    data = record.get("data")
    if '"paragraphs"' in (data if isinstance(data, str) else json.dumps(data))[:_SHOWN]:
        return (
            "the file is in the form of SQuAD, with questions within paragraphs within articles: write a row for each question"
            " (docs/conversions.md)"
        )
    if not {"images", "annotations"} <= record.keys():
        return ""
    if "categories" in record:
        return (
            "the file is in the form of COCO, with images, annotations and categories apart: write a row for each picture, with the names of its"
            " categories (docs/conversions.md)"
        )
    return (
        "the file is in the form of COCO, with images and annotations apart, and rows have both. pandas writes these by"
        ' DataFrame(annotations).merge(DataFrame(images), left_on="image_id", right_on="id").to_json(PATH, orient="records",'
        " lines=True): name the columns file_name and caption. docs/conversions.md has lines that need no pandas"
    )


def _rows_within(record: Mapping[str, Any]) -> str:
    """Return what to do where the rows are in a list of the one object that a file holds; else nothing."""
    lists = (name for name, value in record.items() if isinstance(value, list) and value and isinstance(value[0], dict))
    name = next(lists, "")
    if name and {"role", "content"} <= record[name][0].keys():
        return f". {name!r} holds messages, which columns.messages names"
    return f". {name!r} is a list of objects: if these are the rows, save that list alone" if name else ""


_SHOWN = 1000
"""Characters of a value by which it is told what an object is."""
_FLOAT_BITS = 1023
"""Of whole numbers that have a float of about their size."""


def _json_record(text: str, noun: Noun, where: str) -> dict[str, Any]:
    if not text.strip():
        raise JobError("InvalidData", f"{where} is empty; remove it")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        lone = ". Rows are lines, or the items of one list" if noun == "line" and text.strip() in ("{", "[") else ""
        raise JobError(
            "InvalidData", f"{where} is not JSON: {error}: {quoted(repr(text.strip()[:120]))}{lone}"
        ) from error
    if not isinstance(record, dict):
        of_rows = isinstance(record, list) and any(isinstance(item, dict) for item in record[:1])
        way = (
            "a list of rows stands in a file that ends in .json"
            if of_rows
            else "rows are objects, in which each value has the name of its column"
        )
        raise JobError("InvalidData", f"{where} is no JSON object: {quoted(repr(text.strip()[:120]))}: {way}")
    return record
