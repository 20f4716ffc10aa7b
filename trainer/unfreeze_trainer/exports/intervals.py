"""Intervals of metrics by the bootstrap: what they would be on other samples of the same size (Efron 1979, percentiles)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

RESAMPLES = 400
_COST = 4 * 10**7
"""Rows that are drawn in all; of many samples fewer resamples do, since the interval is narrow."""
_FEWEST = 40
_LOW, _HIGH = 0.025, 0.975
_SEED = 20
"""The same predictions have the same intervals."""
Interval = tuple[float, float]


def intervals(metrics: Callable[[np.ndarray], dict[str, float]], sample: np.ndarray) -> dict[str, Interval]:
    """Return the interval in which 95 % of each metric's values lie when samples are drawn with replacement.

    Parameters
    ----------
    metrics
        Of rows with weights, float64 of shape (rows,).
    sample
        The sample of each row, in order: words of a text are drawn together, int64 of shape (rows,).
    """
    found: dict[str, list[float]] = {}
    for weights in resampled(sample):
        for name, value in metrics(weights).items():
            found.setdefault(name, []).append(value)
    whole = {name: np.array(values) for name, values in found.items()}
    return {
        name: (float(np.quantile(values, _LOW)), float(np.quantile(values, _HIGH)))
        for name, values in whole.items()
        if np.isfinite(values).all()
    }


def resampled(sample: np.ndarray) -> Iterator[np.ndarray]:
    """Yield weights of rows, float64 of shape (rows,), as when samples are drawn with replacement; `sample` as of `intervals`."""
    if not len(sample):
        return
    rng = np.random.default_rng(_SEED)
    place = np.concatenate([[0], np.cumsum(sample[1:] != sample[:-1])])
    count = int(place[-1]) + 1
    for _ in range(max(_FEWEST, min(RESAMPLES, _COST // len(sample)))):
        drawn = np.bincount(rng.integers(count, size=count), minlength=count)
        yield drawn[place].astype(np.float64)
