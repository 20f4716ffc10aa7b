"""Columns and texts that tell a label by themselves, so that a model need not learn what it is for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_trainer.errors import some_of

if TYPE_CHECKING:
    import pyarrow as pa

_SURE = 0.95
"""Share of the samples whose label a column has to tell, beyond what guessing tells."""
_IN_TEXT = 0.5
"""Share of a label's texts that have to hold it."""
_OFTENER = 5.0
"""How many times as often other texts hold it at most."""
_LEAST = 10
"""Samples of a label, or of all, that tell anything."""
_SAMPLED = 20_000
_SHORTEST = 3
"""Characters of a label that is looked for in texts."""
_DIGITS = re.compile(r"[0-9]+")


def telling_columns(columns: Mapping[str, pa.ChunkedArray], labels: np.ndarray) -> Iterator[tuple[str, float, str]]:
    """Yield columns that tell the label by themselves: name, share of samples whose label it tells, and how.

    Parameters
    ----------
    columns
        Cells of each, as text; those that the model reads are not among them.
    labels
        Class id of each row, int64 of shape (rows,).

    Notes
    -----
    A value tells the label that the other rows with it have (leave one out): one that no other row has tells nothing. What is
    left of a cell without its digits is taken for a value too, and so are neighbours in the order of numbers, since ids were
    often given label by label.
    """
    if len(labels) < _LEAST:
        return
    guessed = np.bincount(labels).max() / len(labels)
    for name, column in columns.items():
        ways = (
            ("the rows with one value have one label", _told(_codes(column), labels)),
            ("its cells without their digits do", _told(_codes(_without_digits(column)), labels)),
            ("rows that follow each other in its order have one label", _neighbours(column, labels)),
        )
        for how, share in ways:
            if share >= _SURE and share - guessed >= (1 - guessed) / 2:
                yield name, share, how
                break


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    encoded = column.combine_chunks().dictionary_encode()
    codes: np.ndarray = (
        encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False).astype(np.int64)
    )
    return codes


def _without_digits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    return pc.replace_substring_regex(column, r"[0-9]+", "")


def _told(codes: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of samples whose label most of the other ones with the same code have."""
    classes = int(labels.max()) + 1
    pairs, counts = np.unique(codes * classes + labels, return_counts=True)
    order = np.lexsort((-counts, pairs // classes))
    owners, counts = (pairs // classes)[order], counts[order]
    first = np.flatnonzero(np.diff(owners, prepend=-1))
    best = counts[first]
    second = np.zeros_like(best)
    followed = np.diff(np.append(first, len(owners))) > 1
    second[followed] = counts[first[followed] + 1]
    return float(best[best - 1 > second].sum() / len(codes))


def _neighbours(column: pa.ChunkedArray, labels: np.ndarray) -> float:
    """Return the share of rows, in the order of a column of different numbers, that have the label of the one before."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        numbers = pc.cast(pc.utf8_trim_whitespace(column), pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return 0.0
    order = np.argsort(numbers, kind="stable")
    if np.isnan(numbers).any() or 2 * np.count_nonzero(np.diff(numbers[order])) < len(numbers):
        return 0.0
    ordered = labels[order]
    return float((ordered[1:] == ordered[:-1]).mean())


def told_in_texts(texts: Sequence[str], labels: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Return the labels that stand in their own texts as words, each with the share of these.

    Parameters
    ----------
    texts
        Of some rows.
    labels
        Class id of each, int64 of shape (rows,).
    names
        The labels.
    """
    rows = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), _SAMPLED)).astype(np.int64))
    found: dict[str, float] = {}
    for label, name in enumerate(names):
        own = rows[labels[rows] == label]
        if len(name) < _SHORTEST or len(own) < _LEAST or not _LETTER.search(name):
            continue
        word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
        share = np.mean([bool(word.search(texts[row])) for row in own])
        if share < _IN_TEXT:
            continue
        others = rows[labels[rows] != label]
        beside = np.mean([bool(word.search(texts[row])) for row in others]) if len(others) else 0.0
        if share >= _OFTENER * beside:
            found[name] = float(share)
    return found


_LETTER = re.compile(r"[^\W\d_]")


def said_of_leaks(columns: Sequence[tuple[str, float, str]], in_texts: Mapping[str, float]) -> Iterator[str]:
    """Yield what people are shown of them."""
    for name, share, how in columns:
        yield (
            f"column {name!r} tells the label of {100 * share:.0f} % of the samples by itself: {how}. The model does not read it; if"
            " samples were chosen or named by it, look that its values are not divided between the splits"
        )
    if in_texts:
        shown = some_of([f"{name!r} in {100 * share:.0f} %" for name, share in in_texts.items()])
        yield f"labels stand in their own texts ({shown}): the model may learn to read the label off; remove it from the texts"
