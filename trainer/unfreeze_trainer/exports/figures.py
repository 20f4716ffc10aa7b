"""Figures of predictions: of each class, what is taken for what, how sure and how right. Read from files, some rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_api.contracts.evaluation import (
    MAX_CLASSES,
    MAX_CONFUSED,
    MAX_PAIRS,
    MAX_POINTS,
    Bin,
    Calibration,
    ClassFigures,
    ConfusedPair,
    Confusion,
    Evaluation,
    SplitFigures,
    TargetFigures,
)
from unfreeze_trainer.exports.intervals import intervals
from unfreeze_trainer.exports.predictions import FOLDER, About, about, batches, class_ids, columns_of, matrix
from unfreeze_trainer.exports.thresholds import Decided, decided, thresholds
from unfreeze_trainer.objectives.classification import CALIBRATION_BINS

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = ("validation", "test")
_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
_ROUNDS = 50
_BETAS = (1e-3, 1e3)
"""Inverse temperatures that are looked at."""


def files(run_folder: Path) -> dict[str, tuple[Path, About]]:
    """Return the files of predictions of a run, by split, and what they are of; those that cannot be read are none."""
    paths = {split: run_folder / FOLDER / f"{split}.parquet" for split in SPLITS}
    return {split: (path, found) for split, path in paths.items() if (found := about(path))}


def evaluate(found: dict[str, tuple[Path, About]]) -> Evaluation | None:
    """Return what the predictions of a run say; None where there are none.

    The temperature and the thresholds are those of the validation data, also where they are applied to the test data.
    """
    if not found:
        return None
    _, what = next(iter(found.values()))
    heat, chosen = None, None
    if "validation" in found:
        path, of = found["validation"]
        heat = temperature(path, of) if of.kind == "OneOf" else None
        chosen = thresholds(path, of) if of.kind == "AnyOf" else None
    splits = {}
    for split, (path, of) in found.items():
        if of.kind == "OneOf":
            splits[split] = _of_classes(path, of, heat)
        elif of.kind == "AnyOf":
            splits[split] = _of_labels(decided(path, of, chosen), of, chosen)
        else:
            splits[split] = _of_amounts(path, of)
    return Evaluation(kind=what.kind, step=what.step, temperature=heat, splits=splits)


# One of several classes


def _of_classes(path: Path, what: About, heat: float | None) -> SplitFigures:
    parts, unseen = [], 0
    for batch in batches(path, ["row", "label", "prediction", "confidence"]):
        ids = [class_ids(batch.column(name), what.names).astype(np.int32) for name in ("label", "prediction")]
        unseen += batch.column("confidence").null_count
        row, confidence = (batch.column(name).to_numpy(zero_copy_only=False) for name in ("row", "confidence"))
        parts.append((*ids, confidence, row))
    actual, predicted, confidence, row = (np.concatenate(part) for part in zip(*parts, strict=True))
    count = len(what.names)
    hits, given, support = (
        np.bincount(ids[ids >= 0], minlength=count) for ids in (actual[actual == predicted], predicted, actual)
    )
    figures = class_figures(what.names, hits, given, support)
    return SplitFigures(
        rows=len(actual),
        unseen=unseen,
        intervals=intervals(class_rates(actual, predicted, count, words="word" in columns_of(path)), row, shares=True),
        classes=figures[:MAX_CLASSES] if count <= MAX_CLASSES else _worst(figures),
        classes_left_out=max(0, count - MAX_CLASSES),
        confusion=_confusion(what.names, actual, predicted),
        calibration=_calibration(path, what, actual == predicted, confidence, heat),
    )


def class_rates(
    actual: np.ndarray, predicted: np.ndarray, count: int, *, words: bool
) -> Callable[[np.ndarray], dict[str, float]]:
    """Return what computes those metrics of rows with weights that follow from labels and predictions, by the names of the runs'.

    Parameters
    ----------
    actual, predicted
        Class ids, int64 of shape (rows,); -1 of no prediction.
    count
        Classes.
    words
        Whether the rows are words.

    Notes
    -----
    A class that weights leave nothing of counts as it does in all rows: left out, it would have a constant answer look right in each draw
    without the rare class.
    """
    right, has = actual == predicted, predicted >= 0

    def of_classes(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hits, given, support = (
            np.bincount(ids[kept], weights[kept], minlength=count)
            for ids, kept in ((actual, right), (predicted, has), (actual, slice(None)))
        )
        with np.errstate(invalid="ignore"):
            return 2 * hits / (given + support), hits / support

    whole = () if words else of_classes(np.ones(len(actual)))

    def rates(weights: np.ndarray) -> dict[str, float]:
        accuracy = float(weights[right].sum() / weights.sum())
        if words:
            return {"tokenAccuracy": accuracy}
        f1, recall = (np.where(np.isnan(own), all_, own) for own, all_ in zip(of_classes(weights), whole, strict=True))
        return {"accuracy": accuracy, "macroF1": float(np.nanmean(f1)), "balancedAccuracy": float(np.nanmean(recall))}

    return rates


def class_figures(names: list[str], hits: np.ndarray, predicted: np.ndarray, support: np.ndarray) -> list[ClassFigures]:
    """Return precision, recall and F1 of each class, of shape (classes,), as scikit-learn has them; 0 where undefined."""
    precision, recall = hits / np.maximum(predicted, 1), hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(predicted + support, 1)
    columns = zip(names, *(values.tolist() for values in (precision, recall, f1, support, predicted)), strict=True)
    return [
        ClassFigures(label=label, precision=p, recall=r, f1=f, support=s, predicted=given)
        for label, p, r, f, s, given in columns
    ]


def _worst(figures: list[ClassFigures]) -> list[ClassFigures]:
    """Return those with the most errors, in the order of the classes."""
    errors = [one.support + one.predicted - 2 * one.recall * one.support for one in figures]
    kept = np.sort(np.argsort(-np.array(errors), kind="stable")[:MAX_CLASSES])
    return [figures[index] for index in kept]


def _confusion(names: list[str], actual: np.ndarray, predicted: np.ndarray) -> Confusion:
    pairs, counts = np.unique(np.stack([actual, predicted]), axis=1, return_counts=True)
    wrong = pairs[0] != pairs[1]
    errors = np.zeros(len(names), dtype=np.int64)
    for ids in pairs:
        np.add.at(errors, ids[wrong & (ids >= 0)], counts[wrong & (ids >= 0)])
    kept = np.sort(np.argsort(-errors, kind="stable")[:MAX_CONFUSED])
    place = np.full(len(names) + 1, -1)  # the last one is that of no prediction
    place[kept] = np.arange(len(kept))
    rows, columns = place[pairs]
    shown = (rows >= 0) & (columns >= 0)
    table = np.zeros((len(kept), len(kept)), dtype=np.int64)
    table[rows[shown], columns[shown]] = counts[shown]
    most = np.flatnonzero(wrong)[np.argsort(-counts[wrong], kind="stable")[:MAX_PAIRS]]
    return Confusion(
        labels=[names[index] for index in kept],
        counts=table.tolist(),
        left_out=len(names) - len(kept),
        pairs=[
            ConfusedPair(
                label=names[pairs[0, index]],
                prediction=names[pairs[1, index]] if pairs[1, index] >= 0 else None,
                count=int(counts[index]),
            )
            for index in most
        ],
    )


# Calibration


def temperature(path: Path, what: About) -> float | None:
    """Return what logits are divided by so that the likelihood of the labels is the highest (Guo et al. 2017, section 4.2).

    The negative log-likelihood is convex in the inverse temperature: Newton's method, kept within an interval that holds the
    minimum. None where it has no minimum: the model makes no error, or is no better than chance.
    """
    low, high = _BETAS
    beta, wrong = (
        1.0,
        any((np.take_along_axis(logs, ids[:, None], 1) < 0).any() for logs, ids in _log_chances(path, what)),
    )
    if not wrong:
        return None
    for _ in range(_ROUNDS):
        _, slope, curve, _ = _likelihood(path, what, beta)
        low, high = (low, beta) if slope > 0 else (beta, high)
        ahead = beta - slope / curve if curve > 0 else np.inf
        step = ahead if low < ahead < high else np.sqrt(low * high)
        if abs(step - beta) <= 1e-7 * beta:
            break
        beta = float(step)
    return 1 / beta if beta > 1.01 * _BETAS[0] else None


def _likelihood(path: Path, what: About, beta: float) -> tuple[float, float, float, int]:
    """Return sums of the negative log-likelihood, and of its first and second derivative by the inverse temperature, and rows."""
    nll = slope = curve = 0.0
    count = 0
    for logs, label in _log_chances(path, what):
        scaled = beta * logs
        normalizer = np.log(np.exp(scaled).sum(axis=1))  # the largest is below 0, and not far
        chances = np.exp(scaled - normalizer[:, None])
        own = np.take_along_axis(logs, label[:, None], axis=1)[:, 0]
        mean = (chances * logs).sum(axis=1)
        nll += float((normalizer - beta * own).sum())
        slope += float((mean - own).sum())
        curve += float((chances * logs * logs).sum() - (mean * mean).sum())
        count += len(label)
    return nll, slope, curve, count


def _log_chances(path: Path, what: About) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the logarithms of probabilities, less the largest of each row, float64 of shape (rows, classes), and class ids.

    They are the logits but for what a row's have in common. Rows without probabilities are left out.
    """
    for batch in batches(path, ["label", "probabilities"]):
        chances = matrix(batch.column("probabilities"), len(what.names)).astype(np.float64)
        label = class_ids(batch.column("label"), what.names)
        kept = np.isfinite(chances).all(axis=1)
        if kept.any():
            logs = np.log(np.maximum(chances[kept], _SMALLEST))
            yield logs - logs.max(axis=1, keepdims=True), label[kept]


def _calibration(
    path: Path, what: About, right: np.ndarray, confidence: np.ndarray, heat: float | None
) -> Calibration | None:
    known = np.isfinite(confidence)
    nll, _, _, count = _likelihood(path, what, 1.0)
    if not count:
        return None
    bins = _bins(right[known], confidence[known])
    result = Calibration(ece=_ece(bins), nll=nll / count, bins=bins)
    if heat is None:
        return result
    calibrated = [1 / np.exp(logs / heat).sum(axis=1) for logs, _ in _log_chances(path, what)]
    return result.model_copy(
        update={
            "calibrated_ece": _ece(_bins(right[known], np.concatenate(calibrated))),
            "calibrated_nll": _likelihood(path, what, 1 / heat)[0] / count,
        }
    )


def _bins(right: np.ndarray, confidence: np.ndarray) -> list[Bin]:
    places = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    rows, hits, sums = (
        np.bincount(places, weights, minlength=CALIBRATION_BINS)
        for weights in (None, right.astype(float), confidence.astype(float))
    )
    return [
        Bin(rows=int(count), confidence=total / count, accuracy=hit / count)
        for count, hit, total in zip(rows, hits, sums, strict=True)
        if count
    ]


def _ece(bins: list[Bin]) -> float:
    total = sum(one.rows for one in bins)
    return sum(one.rows * abs(one.accuracy - one.confidence) for one in bins) / max(total, 1)


# Several labels, and numbers


def _of_labels(found: Decided, what: About, chosen: np.ndarray | None) -> SplitFigures:
    figures = class_figures(what.names, found.hits, found.predicted, found.support)
    right, hits, either = found.of_rows

    def rates(weights: np.ndarray) -> dict[str, float]:
        total = float(weights @ either)
        micro = 2 * float(weights @ hits) / total if total else 0.0
        return {"microF1": micro, "subsetAccuracy": float(weights @ right / weights.sum())}

    if chosen is not None:
        at = class_figures(what.names, found.hits_at, found.predicted_at, found.support)
        figures = [
            one.model_copy(update={"threshold": threshold, "f1_at_threshold": other.f1})
            for one, other, threshold in zip(figures, at, chosen.tolist(), strict=True)
        ]
    count = len(figures)
    return SplitFigures(
        rows=found.rows,
        intervals=intervals(rates, np.arange(found.rows), shares=True),
        classes=figures if count <= MAX_CLASSES else _worst(figures),
        classes_left_out=max(0, count - MAX_CLASSES),
    )


def _of_amounts(path: Path, what: About) -> SplitFigures:
    pairs = np.concatenate([np.stack(amounts(batch, what)) for batch in batches(path, ["label", "prediction"])], axis=1)
    rows = pairs.shape[1]
    shown = np.unique(np.linspace(0, rows - 1, min(rows, MAX_POINTS)).astype(int))
    targets = []
    for place, name in enumerate(what.names):
        actual, predicted = pairs[..., place]
        errors, total = predicted - actual, float(((actual - actual.mean()) ** 2).sum())
        targets.append(
            TargetFigures(
                name=name,
                rmse=_finite(np.sqrt((errors**2).mean())),
                mae=_finite(np.abs(errors).mean()),
                r2=_finite(1 - (errors**2).sum() / total) if total else None,
                points=[(one, other) for one, other in pairs[:, shown, place].T.tolist() if isfinite(other)],
            )
        )

    def rates(weights: np.ndarray) -> dict[str, float]:
        errors = pairs[1] - pairs[0]
        total = weights.sum()
        squares, mean = weights @ errors**2, weights @ pairs[0] / total
        spread = weights @ (pairs[0] - mean) ** 2
        return {
            "rmse": float(np.sqrt(squares / total).mean()),
            "mae": float((weights @ np.abs(errors) / total).mean()),
            "r2": float((1 - squares / np.where(spread > 0, spread, np.nan)).mean()),
        }

    return SplitFigures(rows=rows, targets=targets, intervals=intervals(rates, np.arange(rows)))


def _finite(value: float) -> float | None:
    return float(value) if isfinite(value) else None


def amounts(batch: pa.RecordBatch, what: About) -> tuple[np.ndarray, np.ndarray]:
    """Return what the data says and what the model says, float64 of shape (rows, targets) each."""
    width = len(what.names)
    one, other = (
        column.to_numpy(zero_copy_only=False)[:, None] if width == 1 else matrix(column, width)
        for column in (batch.column("label"), batch.column("prediction"))
    )
    return one, other
