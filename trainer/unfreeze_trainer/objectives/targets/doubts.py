"""What is strange about the labels of some data, in sentences for people: how they are written, and how often they stand there."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

SEPARATORS = (",", ";", "|")
"""What stands between labels in one cell."""
_LIST = re.compile(r"\s*\[\s*('.*'|\".*\"|[0-9.,\s]+)\s*\]\s*")
"""As Python, JSON and numpy write one."""
_OTHERS = re.compile(r"[;|/>\t ]")
_LIKE_MISSING = frozenset({"nan", "na", "n/a", "<na>", "nat", "null", "none", "nil", "#n/a", "?", "-"})
"""What programs and people write where a label is missing, in small letters."""
_MANY = 20
"""Labels from which on few samples of each are said."""
_SHOWN = 40
"""Characters of a label in a line."""


def doubts(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield what is strange about labels, given how many samples, or words, have each; of each kind once, with how many more there are."""
    for kind in (_twins, _lists, _aside, _missing):
        said = [*kind(counts)]
        if said:
            yield said[0] + (f" (so it is with {len(said) - 1} more)" if said[1:] else "")


def several_in_one(counts: Mapping[str, int], divided: str = "") -> Iterator[str]:
    """Yield which label is made of others; `divided` stands between the labels of a cell, empty where each is one label."""
    for separator in (*SEPARATORS, " "):
        if separator == divided:
            continue
        made = {
            label: parts
            for label in counts
            if len(parts := [*filter(None, map(str.strip, label.split(separator)))]) > 1
        }
        times = Counter(part for parts in made.values() for part in parts)
        known = counts.keys() | {part for part, count in times.items() if count > 1}
        found = next((label for label, parts in made.items() if known.issuperset(parts)), "")
        if found and (separator != " " or known.issuperset(times)):  # names of several words may share some
            others = " and ".join(map(_shown, made[found][:2]))
            remedy = (
                f"set the task's labels to Multi{'' if separator == ',' else f' and labelSeparator to {separator!r}'}"
            )
            if divided:
                remedy = f"write {divided!r} between them, as elsewhere"
            yield f"the label {_shown(found)} is made of {others}, and is learned as one more: if it stands for several, {remedy}"


def never_several(labels: Iterable[str], separator: str) -> str:
    """Return what is said of texts none of which has several labels with a separator between them."""
    example = next((label for label in labels if _OTHERS.search(label.strip())), "")
    found = f", as in {_shown(example)}" if example else ""
    return (
        f"no sample has more than one label: if something else than {separator!r} stands between them{found}, set the task's labelSeparator; if"
        " each sample has one, labels Single learns which"
    )


def few_of_each(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield that most labels stand at one sample alone."""
    alone = sum(count == 1 for count in counts.values())
    if len(counts) > _MANY and 2 * alone > len(counts):
        yield f"{alone:,} of the {len(counts):,} labels stand at one sample alone, as names or dates do: is it the right column?"


def _twins(counts: Mapping[str, int]) -> Iterator[str]:
    alike: dict[str, str] = {}
    for label in counts:
        composed = unicodedata.normalize("NFC", label)
        if (other := alike.setdefault(composed.strip().casefold(), label)) != label:
            what, both = "blanks or capitals", f"{_shown(other)} and {_shown(label)}"
            if unicodedata.normalize("NFC", other) == composed:  # they look the same
                what, both = "how their accents are stored", f"{other[:_SHOWN]!a} and {label[:_SHOWN]!a}"
            yield f"the labels {both} differ in {what} alone, and are learned as two: write them alike if one is meant"


def _lists(counts: Mapping[str, int]) -> Iterator[str]:
    for label in counts:
        if _LIST.fullmatch(label):
            yield (
                f"the label {_shown(label)} is a list that is written out, and is learned as one name: if several are meant, set the task's"
                " labels to Multi"
            )


def _aside(counts: Mapping[str, int]) -> Iterator[str]:
    for label, count in counts.items():
        if label.startswith("_"):
            yield (
                f"{count:,} have the label {_shown(label)}, which reads like what is kept aside, as Speech Commands' noise is, and is"
                " learned as any other: if it is none, move it out of the data"
            )


def _missing(counts: Mapping[str, int]) -> Iterator[str]:
    for label, count in counts.items():
        if label.strip().lower() in _LIKE_MISSING or (label == "-1" and _count_classes(counts.keys() - {"-1"})):
            yield (
                f"{count:,} have the label {_shown(label)}, which reads like a missing one and is learned as any other: if"
                " none is meant, leave these rows out"
            )


def _count_classes(labels: AbstractSet[str]) -> bool:
    """Return whether labels are numbers from 0 on and no scale around it, as -1, 0, 1 is."""
    return all(label.isdecimal() for label in labels) and not labels <= {"0", "1"}


def _shown(label: str) -> str:
    return repr(label if len(label) <= _SHOWN else label[: _SHOWN - 1] + "\u2026")
