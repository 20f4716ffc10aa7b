"""Intervals of metrics by the bootstrap: what they would be on other samples of the same size (Efron 1979, percentiles)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

RESAMPLES = 400
_COST = 4 * 10**7
"""Rows that are drawn in all; of many samples fewer resamples do, since the interval is narrow."""
_FEWEST = 40
_LOW, _HIGH = 0.025, 0.975
_RARE = 0.05
"""Probability of seeing none of what as large a share of all samples is."""
_SEED = 20
"""The same predictions have the same intervals."""
Interval = tuple[float, float]


def intervals(
    metrics: Callable[[np.ndarray], dict[str, float]], sample: np.ndarray, *, shares: bool = False
) -> dict[str, Interval]:
    """Return the interval in which 95 % of each metric's values lie when samples are drawn with replacement.

    Parameters
    ----------
    metrics
        Of rows with weights, float64 of shape (rows,).
    sample
        The sample of each row, in order: words of a text are drawn together, int64 of shape (rows,).
    shares
        Whether they are shares of what is right, 0 to 1: where all or nothing is, whatever is drawn, the interval is as wide as so many
        samples make it (the rule of three).
    """
    found: dict[str, list[float]] = {}
    for weights in resampled(sample):
        for name, value in metrics(weights).items():
            found.setdefault(name, []).append(value)
    whole = {name: np.array(values) for name, values in found.items()}
    ends = {
        name: (float(np.quantile(values, _LOW)), float(np.quantile(values, _HIGH)))
        for name, values in whole.items()
        if np.isfinite(values).all()
    }
    if shares and ends:
        unseen = 1 - _RARE ** (1 / len(np.unique(sample)))
        alike = {(1.0, 1.0): (1 - unseen, 1.0), (0.0, 0.0): (0.0, unseen)}
        ends = {name: alike.get(end, end) for name, end in ends.items()}
    return ends


def resampled(sample: np.ndarray) -> Iterator[np.ndarray]:
    """Yield weights of rows, float64 of shape (rows,), as when samples are drawn with replacement; `sample` as of `intervals`."""
    if not len(sample):
        return
    rng = np.random.default_rng(_SEED)
    place = np.concatenate([[0], np.cumsum(sample[1:] != sample[:-1])])
    count = int(place[-1]) + 1
    for _ in range(draws_of(len(sample))):
        drawn = np.bincount(rng.integers(count, size=count), minlength=count)
        yield drawn[place].astype(np.float64)


def draws_of(rows: int) -> int:
    """Return how many times rows are drawn, at least one of them."""
    return max(_FEWEST, min(RESAMPLES, _COST // rows))
