"""Metrics of ranks, from the scores of all samples: no sum over workers has them."""

from __future__ import annotations

import numpy as np


def roc_auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve: how often a positive sample has a higher score than a negative one.

    Ties count half, as in scikit-learn's roc_auc_score (Mann and Whitney 1947).

    Parameters
    ----------
    positive
        bool of shape (samples,), both values.
    scores
        Of shape (samples,), finite.
    """
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    below = np.bincount(place, weights=~positive, minlength=len(counts))
    above = np.bincount(place, weights=positive, minlength=len(counts))
    wins = float((above * (np.cumsum(below) - below / 2)).sum())
    return wins / (float(positive.sum()) * float((~positive).sum()))


def average_precision(positive: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean of the precisions at each threshold, weighted by the gain of recall; 0 without positive samples.

    That is scikit-learn's average_precision_score, without interpolation.

    Parameters
    ----------
    positive
        bool of shape (samples,).
    scores
        Of shape (samples,), finite.
    """
    total = int(positive.sum())
    if not total:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(positive[order])[last]
    return float((np.diff(hits, prepend=0) / total * (hits / (last + 1))).sum())
