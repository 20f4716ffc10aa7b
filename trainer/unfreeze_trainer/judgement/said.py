"""What a model says of the rows of a split beside what the data says, and its metrics of these rows with weights.

Figures of a run's predictions are made of files, some rows at a time; here two models are compared row by row, in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_trainer.exports.figures import amounts, class_rates
from unfreeze_trainer.exports.intervals import draws_of, intervals, resampled
from unfreeze_trainer.exports.predictions import About, batches, class_ids
from unfreeze_trainer.judgement.paired import (
    LEVEL,
    Difference,
    Rates,
    by_bootstrap,
    by_rows,
    interval_of_share,
    within_by_bootstrap,
    within_by_rows,
)
from unfreeze_trainer.objectives.answers import Kind

if TYPE_CHECKING:
    import pyarrow as pa

_INSTEAD = {
    "auroc": "balancedAccuracy",
    "mcc": "balancedAccuracy",
    **dict.fromkeys(("brier", "ece"), "accuracy"),
    "mAP": "macroF1",
    "spearman": "pearson",
}
"""What models are compared by where a metric needs more than what they predict."""
_OF_LOSS: dict[Kind, str] = {"OneOf": "accuracy", "AnyOf": "microF1", "Amounts": "rmse"}
_LOWER = ("rmse", "mae")
_ROUNDING = 1e-24
"""Share of the squares of numbers below which their squared spread is rounding."""
_OF_ROWS = ("accuracy", "subsetAccuracy")
_SEED = 21
_ALIKE = 1e-9
"""Share of a difference that rounding may take."""


@dataclass(frozen=True, eq=False)
class Said:
    """Both for each row: class ids of shape (rows,) of OneOf, bool of shape (rows, labels) of AnyOf, numbers of shape (rows, targets) of Amounts."""

    kind: Kind
    names: list[str]
    actual: np.ndarray
    predicted: np.ndarray

    @classmethod
    def read(cls, path: Path, about: About) -> Said:
        """Read a file of predictions."""
        parts = [_arrays(batch, about) for batch in batches(path, ["label", "prediction"])]
        actual, predicted = (np.concatenate(part) for part in zip(*parts, strict=True))
        assert about.kind != "Texts"  # these have no outputs
        return cls(about.kind, about.names, actual, predicted)

    @classmethod
    def of(cls, kind: Kind, names: list[str], targets: np.ndarray, outputs: np.ndarray) -> Said:
        """Return what a model says by its outputs, of shape (rows, outputs), beside targets as `Targets.values` has them."""
        if kind == "Amounts":
            return cls(kind, names, targets.reshape(outputs.shape), outputs)
        if kind == "OneOf":
            return cls(kind, names, targets, outputs.argmax(axis=1))
        has = np.zeros(outputs.shape, dtype=bool)
        rows, places = np.nonzero(targets >= 0)
        has[rows, targets[rows, places]] = True
        return cls(kind, names, has, outputs > 0)

    @property
    def right(self) -> np.ndarray:
        """Which rows are right in all, bool of shape (rows,)."""
        same = self.actual == self.predicted
        found: np.ndarray = same if same.ndim == 1 else same.all(axis=1)
        return found

    @property
    def rates(self) -> Rates:
        """What computes metrics of the rows with weights, by the names of the runs'."""
        if self.kind == "OneOf":
            return class_rates(self.actual, self.predicted, len(self.names), words=False)
        return self._label_rates if self.kind == "AnyOf" else self._amount_rates

    def _label_rates(self, weights: np.ndarray) -> dict[str, float]:
        hits, given = weights @ (self.actual & self.predicted), weights @ (self.actual.astype(int) + self.predicted)
        return {
            "microF1": float(2 * hits.sum() / given.sum()) if given.sum() else 0.0,
            "macroF1": float((2 * hits / np.maximum(given, 1)).mean()),
            "subsetAccuracy": float(weights @ self.right / weights.sum()),
        }

    def _amount_rates(self, weights: np.ndarray) -> dict[str, float]:
        total, errors = weights.sum(), self.predicted - self.actual
        one, other = (values - weights @ values / total for values in (self.actual, self.predicted))
        spread, of_other = weights @ one**2, weights @ other**2
        varies = spread > _ROUNDING * (weights @ self.actual**2)  # in a resample of few rows all may be the same one
        related = varies & (of_other != 0)  # what is constant tells nothing; what is no number stays that
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "rmse": float(np.sqrt(weights @ errors**2 / total).mean()),
                "mae": float((weights @ np.abs(errors) / total).mean()),
                "r2": float(np.where(varies, 1 - weights @ errors**2 / spread, 0.0).mean()),
                "pearson": float(np.where(related, weights @ (one * other) / np.sqrt(spread * of_other), 0.0).mean()),
            }


def compared_by(kind: Kind, metric: str) -> str:
    """Return what two models are compared by where a job has a metric."""
    return _OF_LOSS[kind] if metric == "loss" else _INSTEAD.get(metric, metric)


def goodness(said: Said, metric: str) -> float:
    """Return a metric of `compared_by` of all rows, with its sign turned where less of it is better."""
    found = said.rates(np.ones(len(said.actual)))[metric]
    return -found if metric in _LOWER else found


def compare(one: Said, other: Said, metric: str) -> Difference:
    """Return by how much the first is better than the second, by a metric of `compared_by`; in whatever order the rows are.

    Parameters
    ----------
    one, other
        Of the same rows in the same order.
    """
    if metric in _OF_ROWS:
        return by_rows(one.right, other.right)
    first, second = _in_order(one, other)
    found = by_bootstrap(first.rates, second.rates, metric, len(one.actual), higher=metric not in _LOWER)
    if one.kind != "Amounts" and (one.predicted == other.predicted).all():  # on others they may differ
        most = interval_of_share(0, len(one.actual))[1]
        return replace(found, low=-most, high=most)
    done = one.kind == "Amounts" or not (found.better or found.worse)  # errors of numbers are hardly alike
    if done or (p := _by_lot(first, second, metric)) <= LEVEL:
        return found
    return found.by_lot(p)


def _by_lot(one: Said, other: Said, metric: str) -> float:
    """Return how often two models differ as much where it is drawn by lot which of them says what of each row.

    Drawn again, a few rows that are all alike, as those of a rare class, seem to be certain: of four of them a bootstrap makes an interval
    without width. By lot they would all be one model's once in eight times (Fisher 1935: the randomisation test).
    """
    width = one.predicted[0].size if len(one.predicted) else 1
    differ = (one.predicted != other.predicted).reshape(-1, width).any(axis=1)
    most = abs(goodness(one, metric) - goodness(other, metric))
    rng, hits, draws = np.random.default_rng(_SEED), 1, 1
    for _ in range(draws_of(len(differ))):
        swapped = (differ & rng.integers(2, size=len(differ)).astype(bool)).reshape(-1, *[1] * (one.predicted.ndim - 1))
        said = (
            np.where(swapped, *pair) for pair in ((other.predicted, one.predicted), (one.predicted, other.predicted))
        )
        mine, theirs = (goodness(replace(one, predicted=values), metric) for values in said)
        hits, draws = hits + (abs(mine - theirs) >= most * (1 - _ALIKE)), draws + 1
    return hits / draws


def within(one: Said, other: Said, metric: str, margin: float) -> float:
    """Return how probably the first is worse than the second by no more than a margin on other rows; in whatever order these are.

    Parameters
    ----------
    one, other
        Of the same rows in the same order.
    metric
        One of `compared_by`.
    """
    if metric in _OF_ROWS:
        return within_by_rows(one.right, other.right, margin)
    first, second = _in_order(one, other)
    return within_by_bootstrap(first.rates, second.rates, metric, len(one.actual), margin, higher=metric not in _LOWER)


def _in_order(*found: Said) -> list[Said]:
    """Return what is said of the same rows, these in an order of their own: the bootstrap draws rows by their places."""
    columns = [values.reshape(len(values), -1) for values in (found[0].actual, *(said.predicted for said in found))]
    order = np.lexsort(np.hstack(columns).T)
    return [replace(said, actual=said.actual[order], predicted=said.predicted[order]) for said in found]


def spread(said: Said, metric: str) -> tuple[float, float, float]:
    """Return standard error of a metric and both ends of its 95 % interval, by the bootstrap."""
    [ordered] = _in_order(said)
    rates, rows = ordered.rates, np.arange(len(said.actual))
    low, high = intervals(rates, rows, shares=said.kind != "Amounts").get(metric, (float("nan"), float("nan")))
    if metric in _OF_ROWS:
        share = float(said.right.mean())
        return float(np.sqrt(share * (1 - share) / len(rows))), low, high
    return float(np.std([rates(weights)[metric] for weights in resampled(rows)])), low, high


def _arrays(batch: pa.RecordBatch, about: About) -> tuple[np.ndarray, np.ndarray]:
    if about.kind == "Amounts":
        return amounts(batch, about)
    columns = batch.column("label"), batch.column("prediction")
    if about.kind == "OneOf":
        return class_ids(columns[0], about.names), class_ids(columns[1], about.names)
    return _sets(columns[0], about.names), _sets(columns[1], about.names)


def _sets(column: pa.ListArray, names: list[str]) -> np.ndarray:
    has = np.zeros((len(column), len(names)), dtype=bool)
    counts = column.value_lengths().to_numpy(zero_copy_only=False)
    has[np.repeat(np.arange(len(column)), counts), class_ids(column.flatten(), names)] = True
    return has
