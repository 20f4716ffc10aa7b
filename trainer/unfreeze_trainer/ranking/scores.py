"""How well features tell targets, without training: kNN, LogME and H-score, on centred features and with shrinkage. Pure.

Targets are a matrix for all three: a column of 0 and 1 for each label, or the numbers themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from unfreeze_trainer.judgement.neighbours import NEIGHBOURS, SAME, centre, directions

_RANK = 1e-7
"""Singular values below this share of the largest one are rounding."""
_STEPS = 64
_DECADES = 8.0
"""Of the prior's precision that are searched, up and down from the features' own scale."""
_CHUNK = 1024

Kind = Literal["Label", "Labels", "Numbers"]
"""What a row of targets is: one label of several, any number of labels, or numbers."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Of one matrix of features."""

    knn: float
    """Share of rows whose nearest neighbours among the others say the right label; of other targets the share of their
    variance that the neighbours' mean explains (R², below 0 where it explains nothing)."""
    logme: float
    """Nats of evidence a row that a linear model of the features has over none at all, the mean over the targets' columns; 0 for
    features that tell nothing."""
    h_score: float
    """Between 0 and the number of labels less one, or the number of targets' columns."""
    rows: np.ndarray
    """What each row adds to `knn`, which is their mean; float64 of shape (rows,)."""


def scores(features: np.ndarray, targets: np.ndarray, kind: Kind, copies: np.ndarray | None = None) -> Scores:
    """Score features by how well they tell the targets.

    Parameters
    ----------
    features
        Of shape (rows, width), of any scale.
    targets
        Float64 of shape (rows, columns).
    kind
        What a row of them is.
    copies
        As of `nearest`.
    """
    spread = centre(features)
    wanted = targets - targets.mean(axis=0)
    left, singular = _decomposed(spread)
    rows = nearest(spread, targets, kind, copies)
    return Scores(
        knn=float(rows.mean()),
        logme=log_evidence(left, singular, wanted),
        h_score=h_score(left, singular, wanted, spread),
        rows=rows,
    )


def _decomposed(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return left singular vectors and singular values of centred features, from the smaller one of their two Gram matrices."""
    rows, width = centred.shape
    narrow = width <= rows
    values, vectors = np.linalg.eigh(centred.T @ centred if narrow else centred @ centred.T)
    singular = np.sqrt(np.maximum(values, 0.0))
    kept = singular > _RANK * max(float(singular.max(initial=0.0)), np.finfo(np.float64).tiny)
    singular, vectors = singular[kept], vectors[:, kept]
    return (centred @ vectors / singular if narrow else vectors), singular


def nearest(centred: np.ndarray, targets: np.ndarray, kind: Kind, copies: np.ndarray | None = None) -> np.ndarray:
    """Return what each row adds to the leave-one-out score of its nearest neighbours.

    Rows are near by the cosine of their centred features; neighbours that are as near as the last one that counts do too, so
    that rows of no direction, or all alike, get the mean of all others and not whichever come first.

    Parameters
    ----------
    centred, targets, kind
        As of `scores`, the features less their mean.
    copies
        A number of each row, the same for those of one input: they are no neighbours of each other, since any base finds them. None
        where all are different.

    Returns
    -------
    ndarray
        Float64 of shape (rows,). Of one label each: the share of the neighbours' favourite labels that are right. Of others: 1
        less the row's squared error in units of the mean squared distance from the targets' mean.

    Notes
    -----
    Of 23 metrics over 42,000 runs none was better than this (arXiv 2503.18528).
    """
    rows = len(centred)
    ways = directions(centred).astype(np.float32)
    # More neighbours than a label has rows would be outvoted by others.
    alike = rows / (targets.shape[1] if kind == "Label" else 2)
    count = max(1, min(NEIGHBOURS, rows - 1, round(alike)))
    said = np.empty_like(targets)
    for low in range(0, rows, _CHUNK):
        near = ways[low : low + _CHUNK] @ ways.T
        near[np.arange(len(near)), np.arange(low, low + len(near))] = -np.inf
        if copies is not None:
            near[copies[low : low + _CHUNK, None] == copies] = -np.inf
        last = np.partition(near, rows - count, axis=1)[:, rows - count, None]
        counts = ((near >= last - SAME) & np.isfinite(near)).astype(np.float64)
        said[low : low + _CHUNK] = counts @ targets / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if kind == "Label":
        favourites = said >= said.max(axis=1, keepdims=True) - SAME
        found: np.ndarray = (favourites * targets).sum(axis=1) / favourites.sum(axis=1)
        return found
    spread = ((targets - targets.mean(axis=0)) ** 2).sum(axis=1).mean()
    missed = ((targets - said) ** 2).sum(axis=1)
    return 1.0 - missed / spread if spread else np.zeros(rows)


def log_evidence(left: np.ndarray, singular: np.ndarray, wanted: np.ndarray) -> float:
    """Return LogME (You et al. 2021, arXiv 2102.11005) over the evidence of no features at all, in nats a row.

    The evidence is that of Bayesian linear regression, each column of the targets for itself, at the best precisions of noise and
    weights. Given the ratio of both, the best noise is known; the ratio is searched on a line. Features and targets are centred:
    else whatever is constant explains that most labels are 0. Weights that explain nothing have endless precision, at which the
    evidence is that of none: the score of noise is 0, however many features there are.

    Parameters
    ----------
    left, singular
        Singular value decomposition of the centred features, of shapes (rows, rank) and (rank,).
    wanted
        Centred targets, of shape (rows, columns).
    """
    rows = len(wanted)
    if not singular.size:
        return 0.0
    power = singular**2
    projected = (left.T @ wanted) ** 2
    total = (wanted**2).sum(axis=0)
    beyond = np.maximum(total - projected.sum(axis=0), 0.0)
    ratios = power.mean() * np.logspace(-_DECADES, _DECADES, 2 * _STEPS + 1)
    found: list[float] = []
    for column in np.flatnonzero(total > 0):

        def gain(ratio: float, column: int = int(column)) -> float:
            shrunk = 1.0 + power / ratio
            left_over = (projected[:, column] / shrunk).sum() + beyond[column]
            floor = total[column] * np.finfo(np.float64).eps
            return float(0.5 * np.log(total[column] / max(left_over, floor)) - 0.5 * np.log(shrunk).sum() / rows)

        gains = [gain(ratio) for ratio in ratios]
        best = int(np.argmax(gains))
        low, high = ratios[max(0, best - 1)], ratios[min(len(ratios) - 1, best + 1)]
        found.append(max(0.0, gains[best], *(gain(ratio) for ratio in np.geomspace(low, high, _STEPS))))
    return float(np.mean(found)) if found else 0.0


def shrinkage(centred: np.ndarray, singular: np.ndarray) -> float:
    """Return the weight of the identity that brings the covariance of centred features closest to the true one.

    Ledoit and Wolf 2004, https://doi.org/10.1016/S0047-259X(03)00096-4, section 3.2.

    Parameters
    ----------
    centred, singular
        Features of shape (rows, width), and their singular values.
    """
    rows, width = centred.shape
    mean = (singular**2).sum() / rows / width
    distance = (singular**4).sum() / rows**2 / width - mean**2
    if distance <= 0:
        return 0.0
    spread = ((centred**2).sum(axis=1) ** 2).sum() / rows**2 / width - (singular**4).sum() / rows**3 / width
    return float(min(spread, distance) / distance)


def h_score(left: np.ndarray, singular: np.ndarray, wanted: np.ndarray, centred: np.ndarray) -> float:
    """Return the H-score with a shrunk covariance (Ibrahim et al. 2021, arXiv 2110.06893, section 4).

    The plain one (Bao et al. 2019) is the trace of cov(f)^-1 cov(E[f | y]), which for noise with more features than rows is the
    number of labels less one, as high as it gets. Here the covariance of the features is shrunk towards the identity, and that
    of their means by the same share, so that features which vary alike in all directions score 0. What labels tell of the features is their mean; what other targets tell is the best linear
    prediction, which for labels is the same.

    Parameters
    ----------
    left, singular
        Singular value decomposition of the centred features, of shapes (rows, rank) and (rank,).
    wanted, centred
        Centred targets, of shape (rows, columns), and features.
    """
    if not singular.size:
        return 0.0
    share = shrinkage(centred, singular)
    basis, _ = _decomposed(wanted)
    variances = singular**2 / len(wanted)
    even = variances.sum() / centred.shape[1]
    told = ((left.T @ basis) ** 2).sum(axis=1)
    kept = (1.0 - share) * variances
    return float((kept / (kept + share * even) * told).sum())
