"""Several labels for each row: from which probability on each is predicted, so that its F1 is the highest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_trainer.exports.predictions import About, batches, class_ids, matrix

if TYPE_CHECKING:
    import pyarrow as pa

USUAL = 0.5
_HELD = 2**24
"""Probabilities that are held at a time, 64 MiB."""


@dataclass(frozen=True)
class Decided:
    """Rows of each label, int64 of shape (labels,)."""

    rows: int
    hits: np.ndarray
    predicted: np.ndarray
    support: np.ndarray
    hits_at: np.ndarray
    """Where each label is predicted from its threshold on, as below."""
    predicted_at: np.ndarray
    of_rows: np.ndarray
    """Of each row, float64 of shape (3, rows): whether all its labels are right, hits, and labels that it has or is given."""


def label_matrix(column: pa.Array, names: list[str]) -> np.ndarray:
    """Return which labels stand in the lists of a column, bool of shape (rows, labels)."""
    has = np.zeros((len(column), len(names)), dtype=bool)
    has[column.value_parent_indices().to_numpy(), class_ids(column.flatten(), names)] = True
    return has


def of_labels(path: Path, what: About) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield which labels some rows have, bool of shape (rows, labels), and probabilities, float32 of the same shape."""
    for batch in batches(path, ["label", "probabilities"]):
        yield label_matrix(batch.column("label"), what.names), matrix(batch.column("probabilities"), len(what.names))


def decided(path: Path, what: About, chosen: np.ndarray | None) -> Decided:
    """Count what is predicted of each label, at one half and at the thresholds."""
    rows, parts, sums = 0, list[np.ndarray](), np.zeros((5, len(what.names)), dtype=np.int64)
    at = np.full(len(what.names), USUAL) if chosen is None else chosen
    for has, chances in of_labels(path, what):
        said, said_at = chances > USUAL, chances >= at
        rows += len(has)
        parts.append(
            np.stack([(has == said).all(axis=1), (has & said).sum(axis=1), has.sum(axis=1) + said.sum(axis=1)])
        )
        sums += np.stack([part.sum(axis=0) for part in (has & said, said, has, has & said_at, said_at)])
    hits, predicted, support, hits_at, predicted_at = sums
    of_rows = np.concatenate(parts, axis=1).astype(np.float64)
    return Decided(rows, hits, predicted, support, hits_at, predicted_at, of_rows)


def thresholds(path: Path, what: About) -> np.ndarray:
    """Return for each label the probability from which its F1 is the highest, float64 of shape (labels,).

    One that lies between two probabilities that there are; of several that are as good the one nearest to one half, which it is
    too where no row has the label.
    """
    width, chosen = len(what.names), list[float]()
    rows = sum(len(has) for has, _ in of_labels(path, what))
    step = max(1, _HELD // max(1, rows))
    for first in range(0, width, step):
        columns = slice(first, first + step)
        has, chances = (
            np.concatenate(parts)
            for parts in zip(*((has[:, columns], p[:, columns]) for has, p in of_labels(path, what)), strict=True)
        )
        chosen += [threshold(*pair) for pair in zip(has.T, chances.T, strict=True)]
    return np.array(chosen)


def threshold(has: np.ndarray, chances: np.ndarray) -> float:
    """Return the threshold of one label: bool and float32 of shape (rows,)."""
    if not has.any() or not np.isfinite(chances).all():
        return USUAL
    order = np.argsort(-chances, kind="stable")
    ranked = chances[order].astype(np.float64)
    hits, given = np.cumsum(has[order]), np.arange(1, len(has) + 1)
    f1 = 2 * hits / (given + has.sum())
    ends = np.append(ranked[1:] != ranked[:-1], True)
    lower = np.append(ranked[1:], 0.0)
    middle = np.where((ranked > USUAL) & (lower < USUAL), USUAL, (ranked + lower) / 2)
    middle = np.where(middle > lower, middle, ranked)
    best = np.flatnonzero(ends & (f1 >= f1[ends].max() - 1e-12))
    return float(middle[best][np.argmin(np.abs(middle[best] - USUAL))])
