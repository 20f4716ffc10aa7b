"""Which column of a table holds labels or numbers, by its name and its cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from unfreeze_trainer.commands.facts import Facts
from unfreeze_trainer.objectives.targets.doubts import SEPARATORS

TEXT_NAMES = (
    *("text", "sentence", "content", "document", "question", "query", "review", "comment", "message", "body", "title", "premise"),
    *("description", "tweet", "utterance", "utt", "input", "abstract", "name"),
)  # fmt: skip
"""Of columns of texts, the most usual first."""
PAIRS = (
    *({"premise", "hypothesis"}, {"question", "sentence"}, {"question", "answer"}, {"question", "passage"}, {"query", "passage"}),
    *({"query", "document"}, {"context", "response"}, {"text", "pair"}, {"anchor", "positive"}, {"one", "other"}, {"claim", "evidence"}),
)  # fmt: skip
"""Of two columns of texts that are pairs."""
LABEL_NAMES = frozenset(
    {"label", "labels", "class", "classes", "category", "categories", "target", "targets", "intent", "sentiment", "topic", "emotion"}
    | {"type", "kind", "tag", "tags", "genre", "language", "lang", "stance", "polarity", "gold", "answer", "y", "outcome", "status"}
)  # fmt: skip
_SURE = frozenset({"label", "labels"})
_VALUE_NAMES = frozenset(
    {"value", "score", "scores", "similarity", "rating", "price", "target", "y", "grade", "relatedness", "amount", "age", "count", "stars", "overall"}
)  # fmt: skip
_FLAGS = (frozenset({"0", "1", "0.0", "1.0", "true", "false"}), frozenset({"-1", "1"}))
_SENTENCE = 3
"""Words of a text that is no name."""
_SEVERAL = frozenset({"tags", "keywords"})
"""Of columns whose cells are names of one label nowhere."""
_FEW_CELLS = 4
"""Cells for each word, of tags at least."""
_MOST_TAGS = 10
_FEW = 20
"""Different whole numbers that are rather labels than a measure."""


def has_label(facts: Mapping[str, Facts]) -> bool:
    """Return whether a column is called a label beyond doubt."""
    return any(set(one.words) & _SURE for one in facts.values())


def points(one: Facts, order: Sequence[str]) -> float:
    """Return what speaks for predicting a column."""
    if one.is_named_id or one.look in (
        "empty",
        "constant",
        "id",
        "date",
        "picture",
        "audio",
        "bytes",
        "object",
        "spans",
        "messages",
        "text",
    ):
        return 5.0 if one.look == "text" and set(one.words) & LABEL_NAMES and several(one) else 0.0
    if one.lists is not None and _are_no_labels(one.lists, answers="answer" in one.name.lower()):
        return 0.0
    words = set(one.words)
    named = words & (LABEL_NAMES | _VALUE_NAMES)
    found = 1.0 + 3.0 * (len(words) == 1 and bool(named)) + 2.0 * bool(named) + 4.0 * bool(words & _SURE)
    if one.look in ("category", "boolean") or (one.look == "whole number" and len(one.counts) <= _FEW):
        found += 1.0
    return found + 0.5 * (one.name == order[-1])


def _are_no_labels(lists: Sequence[Any], *, answers: bool) -> bool:
    """Return whether lists hold nothing, or texts of which hardly any stands there twice; `answers` may have few words."""
    items = [item for found in lists for item in found]
    words = [len(item.split()) for item in items if isinstance(item, str)]
    return not items or (
        len(words) == len(items)
        and (answers or sum(words) >= _SENTENCE * len(items))
        and 2 * len({*items}) > len(items)
    )


def is_value(one: Facts) -> bool:
    """Return whether a column holds numbers to predict, and no labels, which have no fraction."""
    whole = one.look == "whole number" and len(one.counts) > _FEW
    sure = set(one.words) & _SURE
    return (whole and not sure) or (one.look == "number" and not (sure and all(map(_is_whole, one.counts))))


def _is_whole(value: str) -> bool:
    try:
        return float(value).is_integer()
    except ValueError:
        return True


def is_flag(one: Facts) -> bool:
    """Return whether a column holds yes and no alone, and is not called a label."""
    return is_yes_or_no(one) and not set(one.words) & (LABEL_NAMES | _VALUE_NAMES)


def is_yes_or_no(one: Facts) -> bool:
    """Return whether a column holds 0 and 1, true and false, or -1 and 1 alone."""
    values = {value.strip().lower() for value in one.counts}
    return bool(values) and any(values <= flags for flags in _FLAGS)


def is_measure(one: Facts) -> bool:
    """Return whether a column of whole numbers is called what is measured."""
    return one.look == "whole number" and bool(set(one.words) & _VALUE_NAMES)


def several(one: Facts) -> str | None:
    """Return what stands between several labels of a cell, `list` for lists; None where each cell is one label.

    A separator has to stand in every second cell, and its parts have to come back in other cells; or all its parts are cells.
    """
    if one.lists is not None:
        return "list"
    for separator in SEPARATORS:
        made = [value for value in one.counts if separator in value]
        if len(made) > 1 and all(part.strip() in one.counts for value in made for part in value.split(separator)):
            return separator  # each part is a label by itself
        if 2 * sum(separator in value for value in one.values) < len(one.values):
            continue
        parts = {value: {part.strip() for part in value.split(separator)} for value in one.counts}
        cells = Counter(part for found in parts.values() for part in found)
        again = sum(count for value, count in one.counts.items() if any(cells[part] > 1 for part in parts[value]))
        short = all(len(part.split()) <= 4 for part in cells)  # noqa: PLR2004 - words of a label
        if short and 2 * again >= len(one.values):
            return separator
    called = LABEL_NAMES if one.look == "text" else _SEVERAL
    return " " if not called.isdisjoint(one.words) and _are_tags(one) else None


def _are_tags(one: Facts) -> bool:
    """Return whether cells are words with blanks between them, and no texts: few words, none twice in a cell, all in other cells."""
    cells = [value.split() for value in one.values]
    times = Counter(word for cell in cells for word in cell)
    return (
        _FEW_CELLS * len(times) <= len(cells)
        and len(cells) < sum(times.values())
        and min(times.values()) > 1
        and all(len({*cell}) == len(cell) <= _MOST_TAGS for cell in cells)
    )
