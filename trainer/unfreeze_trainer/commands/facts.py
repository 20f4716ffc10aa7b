"""What the columns of a table look like: numbers, texts, labels, lists, paths. From some of the rows, as text."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unfreeze_trainer.data.clips import SUFFIXES as CLIP_SUFFIXES
from unfreeze_trainer.data.pictures import FORMATS as PICTURE_SUFFIXES

if TYPE_CHECKING:
    from unfreeze_trainer.data.cells import Cells

Look = Literal[
    "empty", "constant", "id", "date", "whole number", "number", "boolean", "category", "text", "words", "list", "spans", "messages", "picture", "audio", "bytes",
    "object",
]  # fmt: skip
"""What a column looks like. Words are lists of texts, as many as those of another column of such lists, or not; list is one of
other things."""

SAMPLED_ROWS = 20_000
"""Rows that facts are computed from, evenly spread."""
_MOST = 0.95
"""Share of the cells that a look has to fit: tables have strays."""
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
_DATE = re.compile(r"\s*[0-9]{4}-[01]?[0-9]-[0-3]?[0-9]([T ].*)?|\s*[0-9]{1,2}[./][0-9]{1,2}[./][0-9]{2,4}\s*")
_WHOLE = re.compile(r"\s*[+-]?[0-9]+\s*")
_BOOLEANS = frozenset({"true", "false", "yes", "no"})
_ID_NAMES = frozenset(
    {
        "id",
        "ids",
        "uuid",
        "guid",
        "index",
        "idx",
        "key",
        "hash",
        "url",
        "uri",
        "date",
        "time",
        "timestamp",
        "created",
        "updated",
    }
)
_CLASSES = frozenset({"class", "label", "category"})
_TEXT_WORDS = 3.0
_TEXT_CHARACTERS = 40.0
_ONE_WORD = 1.5
_CATEGORIES = 100


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of a column."""

    name: str
    values: Sequence[str]
    """Its cells that are not missing, of the rows that were looked at."""
    content: bytes | None = None
    """The first content, where it holds bytes."""
    names: Literal["picture", "audio"] | None = None
    """What its cells name without a suffix, where files that are called so lie there."""

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Words of its name: `wordCount` and `word_count` have two."""
        return name_words(self.name)

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each value stands there."""
        return Counter(self.values)

    @cached_property
    def length(self) -> float:
        """Mean number of words of a cell."""
        return float(np.mean([len(value.split()) for value in self.values])) if self.values else 0.0

    @cached_property
    def lists(self) -> list[Any] | None:
        """The cells as lists, where all of them are one as JSON or Python writes it: pandas does the latter in CSV."""
        if not self.values or not self.values[0].lstrip().startswith("["):
            return None
        found = _parsed(self.values, json.loads) or _parsed(self.values, ast.literal_eval)
        if found is None:
            return None
        return found if all(isinstance(value, list) for value in found) else None

    @cached_property
    def look(self) -> Look:
        """What it looks like."""
        if self.content is not None:
            return _of_bytes(self.content)
        if not self.values:
            return "empty"
        if self.names:
            return self.names
        if self.lists is not None:
            return _of_lists(self.lists)
        form = self._of_form()
        if len(self.counts) == 1:
            return form if form in ("picture", "audio") else "constant"
        return form or self._of_words()

    def _of_form(self) -> Look | None:
        """Return what the form of most cells tells."""
        forms: tuple[tuple[Look, Callable[[str], object]], ...] = (
            ("object", lambda value: value.startswith("{") and value.endswith("}")),
            ("picture", lambda value: value.lower().endswith(tuple(PICTURE_SUFFIXES))),
            ("audio", lambda value: value.lower().endswith(CLIP_SUFFIXES)),
            ("date", _DATE.fullmatch),
            ("boolean", lambda value: value.strip().lower() in _BOOLEANS),
            ("whole number", _WHOLE.fullmatch),
            ("number", _NUMBER.fullmatch),
        )
        look = next((look for look, test in forms if self._are(test)), None)
        counts_rows = look == "whole number" and (self.is_named_id or self._climbs())
        return "id" if counts_rows else look

    def _of_words(self) -> Look:
        """Return what follows from how many words the cells have, and how many of them differ."""
        distinct, rows = len(self.counts), len(self.values)
        if distinct <= max(2, min(_CATEGORIES, rows / 4)) and self.length <= 2 * _TEXT_WORDS:
            return "category"
        if self.length < _ONE_WORD and (self.is_named_id or distinct == rows):
            return "id"
        characters = float(np.mean([len(value) for value in self.values]))
        is_text = self.length >= _TEXT_WORDS or characters >= _TEXT_CHARACTERS or 2 * distinct > rows
        return "text" if is_text else "category"

    @property
    def is_whole(self) -> bool:
        """Whether its cells are whole numbers."""
        return self._are(_WHOLE.fullmatch)

    @property
    def is_named_id(self) -> bool:
        """Whether its name says that it tells rows apart, or when they were made; that of a class (`ClassId`) does not."""
        return not _ID_NAMES.isdisjoint(self.words) and _CLASSES.isdisjoint(self.words)

    def _are(self, test: Callable[[str], object]) -> bool:
        return sum(1 for value in self.values if test(value)) >= _MOST * len(self.values)

    def _climbs(self) -> bool:
        """Return whether the numbers count the rows."""
        numbers = [int(value) for value in self.values if _WHOLE.fullmatch(value)]
        return len(self.counts) == len(self.values) and all(one < other for one, other in pairwise(numbers))


def _parsed(values: Sequence[str], parse: Callable[[str], Any]) -> list[Any] | None:
    try:
        return [parse(value.strip()) for value in values]
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def facts_of(cells: Cells) -> dict[str, Facts]:
    """Return what the columns of a table look like."""
    found: dict[str, Facts] = {}
    count = len(cells.numbers)
    rows = np.unique(np.linspace(0, max(0, count - 1), min(count, SAMPLED_ROWS)).astype(np.int64))
    for name, column in cells.texts.items():
        values = column.take(rows).to_pylist() if count else []
        found[name] = Facts(name, [value for value in values if value is not None and value.strip()])
    for name, content in cells.contents.items():
        found[name] = Facts(name, [], content)
    return found


def name_words(name: str) -> tuple[str, ...]:
    """Return the words that a column's name is made of, in small letters and without digits."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return tuple(part.lower() for part in parts)


def _of_bytes(content: bytes) -> Look:
    from unfreeze_trainer.data.clips import ClipError, read_header
    from unfreeze_trainer.data.pictures import PictureError, open_picture

    try:
        open_picture(content).close()
    except PictureError:
        pass
    else:
        return "picture"
    try:
        read_header(content)
    except (ClipError, ImportError):
        return "bytes"
    return "audio"


def _of_lists(lists: Sequence[Any]) -> Look:
    items = [item for value in lists for item in value]
    if items and all(isinstance(item, dict) and {"start", "end", "label"} <= item.keys() for item in items):
        return "spans"
    if items and all(isinstance(item, dict) and {"role", "content"} <= item.keys() for item in items):
        return "messages"
    return "words" if items and all(isinstance(item, str) for item in items) else "list"
