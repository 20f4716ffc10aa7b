"""Texts whose words have tags, in the rows of a table: lists of words and tags, or a text and its spans."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from unfreeze_api.contracts.resolved import Dataset
from unfreeze_trainer.data.label_names import with_names
from unfreeze_trainer.data.samples import DataSource, readable
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError, quoted

if TYPE_CHECKING:
    import pyarrow as pa

OUTSIDE = "O"
"""Tag of a word that is in no span."""
_CHUNK_ROWS = 4096
_SHOWN = 60
"""Characters of a cell that a message has."""
_Row = tuple[str, list[str]]
"""An input, and the tags of its words."""


class _RowError(ValueError):
    """What is wrong with a row, as the rest of a message that begins with its number."""


def read_words(dataset: Dataset, where: str, *, spans: bool, skip: bool = False, head: bool = False) -> DataSource:
    """Read a table of words with tags, or its first rows.

    Parameters
    ----------
    dataset, where
        The table, and what messages start with.
    spans
        Whether it has texts with spans, and no words with tags.
    skip
        Whether rows that are wrong are left out.
    head
        Read the first rows alone.

    Returns
    -------
    DataSource
        Its inputs are texts, or lists of words as JSON; its targets a list of tags for each, those of spans in IOB2.

    Raises
    ------
    JobError
        InvalidData: a cell is no list, words and tags differ in number, a span overlaps another one or cuts a word.
    """
    import pyarrow as pa

    names = dataset.columns
    row_of: Callable[[Any, Any, str, str], _Row] = _spanned if spans else _tagged
    first, second = (names.text, names.spans) if spans else (names.tokens, names.tags)
    unread = Unread(where, skip=skip)
    nested: tuple[str, ...] = (second,) if spans else (first, second)
    table = read_table(dataset.path, [first, second], where, unread, head=head, kinds=dict.fromkeys(nested, "Nested"))
    table = with_names(table, dataset, [second])
    total = table.num_rows + len(unread)
    numbers = unread.others(total)
    inputs: list[pa.Array] = []
    tags: list[pa.Array] = []
    for start in range(0, max(1, table.num_rows), _CHUNK_ROWS):
        cells = zip(*(table[name].slice(start, _CHUNK_ROWS).to_pylist() for name in (first, second)), strict=True)
        rows: list[_Row | tuple[None, None]] = []
        for number, (one, other) in zip(numbers[start : start + _CHUNK_ROWS].tolist(), cells, strict=True):
            try:
                rows.append(row_of(one, other, first, second))
            except _RowError as error:
                unread.add([number], JobError("InvalidData", f"{where}: row {number + 1}{error}"))
                rows.append((None, None))
        inputs.append(pa.array([row[0] for row in rows], pa.large_string()))
        tags.append(pa.array([row[1] for row in rows], pa.large_list(pa.string())))
    source = DataSource(dataset, where, pa.chunked_array(inputs), pa.chunked_array(tags), numbers=numbers)
    return readable(source, unread, total, head=head)


def joined(words: str) -> tuple[str, list[tuple[int, int]]]:
    """Return a list of words as a text, with a space between any two, and where in it each word starts and ends.

    Parameters
    ----------
    words
        As JSON, an input of `read_words`.
    """
    listed: list[str] = json.loads(words)
    places, start = [], 0
    for word in listed:
        places.append((start, start + len(word)))
        start += len(word) + 1
    return " ".join(listed), places


def words_in(text: str) -> list[tuple[int, int]]:
    """Return where each word of a text starts and ends: letters and digits that stand together, any other sign alone."""
    return [found.span() for found in _word().finditer(text)]


@cache
def _word() -> re.Pattern[str]:
    # Python's \w lacks the vowel signs of many scripts, and the joiners between their letters.
    marks = "".join(sign for sign in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(sign)[0] == "M")
    return re.compile(rf"[\w{marks}\u200c\u200d]+|\S")


def _tagged(words: Any, tags: Any, first: str, second: str) -> _Row:
    listed, tagged = _texts(words, first, "words"), _texts(tags, second, "tags")
    if len(listed) != len(tagged):
        raise _RowError(
            f" has {len(listed)} words in column {first!r} and {len(tagged)} tags in column {second!r}: give each word one tag"
        )
    return json.dumps(listed, ensure_ascii=False), tagged


def _texts(cell: Any, column: str, what: str) -> list[str]:
    """Return a cell that is a list of texts, none of them empty."""
    listed = _list(cell, column, what)
    if not listed:
        raise _RowError(f": column {column!r} has no {what}; fill them in, or remove the row")
    for place, one in enumerate(listed, 1):
        if isinstance(one, str) and one.strip():
            continue
        if isinstance(one, int | float) and what == "tags":
            raise _RowError(
                f", column {column!r}: tag {place} is the number {quoted(one)}, and tags are text, like B-PER: put the name of"
                " each in its place"
            )
        raise _RowError(f", column {column!r}: entry {place} is {_shown(one)}, and {what} are text that is not empty")
    return [one.strip() for one in listed] if what == "tags" else listed


def _list(cell: Any, column: str, what: str) -> list[Any]:
    if cell is None:
        raise _RowError(f": column {column!r} has no {what}; fill them in, or remove the row")
    listed = cell
    if isinstance(cell, str):
        with suppress(ValueError, RecursionError):
            listed = json.loads(cell)
    if not isinstance(listed, list):
        like = '[{"start": 0, "end": 3, "label": "PER"}]' if what == "spans" else '["one", "two"]'
        raise _RowError(
            f", column {column!r} is {_shown(listed)}, and no list of {what}: in JSON lines and Parquet they are lists, in CSV a"
            f" list as JSON has it, like {like}"
        )
    return listed


def _spanned(text: Any, spans: Any, first: str, second: str) -> _Row:
    if text is None or (isinstance(text, str) and not text.strip()):
        raise _RowError(f": no text in column {first!r}; fill it in, or remove the row")
    if not isinstance(text, str):
        raise _RowError(f", column {first!r} is {_shown(text)}, and no text")
    words = words_in(text)
    begins = {start: number for number, (start, _) in enumerate(words)}
    ends = {end: number for number, (_, end) in enumerate(words)}
    tags, free = [OUTSIDE] * len(words), 0
    for start, end, label in sorted(_span(one, text, second) for one in _list(spans, second, "spans")):
        what = f", column {second!r}: the span {_shown(text[start:end])} ({start} to {end}, {quoted(label)})"
        inner = text[start:end]
        low, high = start + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip())
        if low not in begins or high not in ends:
            raise _RowError(f"{what} {_cut(text, words, low, high)}")
        if begins[low] < free:
            raise _RowError(f"{what} overlaps the one before it: a word has one tag, so remove one of them")
        free = ends[high] + 1
        tags[begins[low] : free] = [f"B-{label}", *[f"I-{label}"] * (free - begins[low] - 1)]
    return text, tags


def _span(one: Any, text: str, column: str) -> tuple[int, int, str]:
    """Return a span that lies within its text."""
    if not isinstance(one, dict):
        raise _RowError(f", column {column!r} has {_shown(one)}, and spans are {{start, end, label}}")
    start, end, label = (one.get(name) for name in ("start", "end", "label"))
    if not (_is_place(start) and _is_place(end) and isinstance(label, str) and label.strip()):
        raise _RowError(
            f", column {column!r} has the span {_shown(one)}: start and end are whole numbers, label is text that is not empty"
        )
    assert isinstance(start, int)
    assert isinstance(end, int)
    if not 0 <= start < end <= len(text) or not text[start:end].strip():
        raise _RowError(
            f", column {column!r} has the span {_shown(one)}, which holds none of the text's {len(text)} characters that are no"
            " space, or ends beyond them: start counts from 0, end is the place after the last one"
        )
    return start, end, label.strip()


def _is_place(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _cut(text: str, words: list[tuple[int, int]], low: int, high: int) -> str:
    """Return which word a span cuts, and what to do."""
    start, end = next(word for word in words if word[0] < low < word[1] or word[0] < high < word[1])
    return f"cuts the word {_shown(text[start:end])} ({start} to {end}): a word has one tag, so let the span begin and end with it"


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    return quoted(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "\u2026")
