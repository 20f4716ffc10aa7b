"""Whether one model is better than another, judged on the same rows: McNemar's exact test, and the paired bootstrap. Pure.

References
----------
McNemar 1947, doi:10.1007/BF02295996: of the rows that one of the two gets right and the other wrong, which share is whose.
Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404: the interval of that share, which excludes a half where the exact test
rejects at 5 %, and of how many such rows there are. Efron 1979, doi:10.1214/aos/1176344552: what the difference would be on other rows, by drawing these again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, floor, isfinite, log10, sqrt
from statistics import NormalDist

import numpy as np

from unfreeze_trainer.exports.intervals import intervals, resampled
from unfreeze_trainer.usefulness import interval_of_gain

Rates = Callable[[np.ndarray], dict[str, float]]
"""Metrics of a model, of rows with weights, float64 of shape (rows,)."""
LEVEL = 0.05
"""How often a test finds a difference where there is none."""
_Z, _LEAST_Z = NormalDist().inv_cdf(1 - LEVEL / 2), 0.1
"""Standard errors that an interval reaches, and what a difference is taken to be of its own at least."""
_DIGITS = 3
_EDGE = 1e-9
"""What rounding may make of a difference that is as large as the margin."""


@dataclass(frozen=True)
class Difference:
    """By how much one model is better than another: above 0 it is better, whichever way the metric goes."""

    one: float
    """The metric of the first."""
    other: float
    low: float
    """Lower end of the 95 % interval of the improvement."""
    high: float
    rows: int
    test: str
    """What judged it, for people."""
    higher: bool = True
    """Whether more of the metric is better."""

    @property
    def gain(self) -> float:
        """By how much the first is better on these rows."""
        return self.one - self.other if self.higher else self.other - self.one

    def figures(self) -> tuple[str, str, str, str, str]:
        """Return one, other, gain, low and high for people: with three digits behind the point, of a metric of small numbers with three that count."""
        known = [abs(value) for value in (self.one, self.other) if isfinite(value) and value]
        digits = max(_DIGITS, _DIGITS - 1 - floor(log10(max(known)))) if known else _DIGITS
        gain, low, high = (f"{value:+.{digits}f}" for value in (self.gain, self.low, self.high))
        return f"{self.one:.{digits}f}", f"{self.other:.{digits}f}", gain, low, high

    @property
    def better(self) -> bool:
        """Whether the first is better, and hardly by chance."""
        return self.low > 0

    @property
    def worse(self) -> bool:
        """Whether the first is worse, and hardly by chance."""
        return self.high < 0

    def by_lot(self, p: float) -> Difference:
        """Return it with an interval as wide as a randomisation test makes it that finds it with a probability above 5 % by chance."""
        reach = abs(self.gain) * _Z / max(NormalDist().inv_cdf(1 - p / 2), _LEAST_Z)
        test = f"{self.test}, and a randomisation test, p = {p:.2g}"
        if self.gain > 0:
            return replace(self, test=test, low=min(self.low, self.gain - reach))
        return replace(self, test=test, high=max(self.high, self.gain + reach))

    @property
    def rows_to_tell(self) -> int | None:
        """About how many rows an interval needs that excludes 0, if the difference stays; None where there is none."""
        reach = self.gain - self.low if self.gain > 0 else self.high - self.gain  # to the side where 0 is
        return ceil(self.rows * (reach / self.gain) ** 2) if self.gain and isfinite(reach) else None


def by_rows(one: np.ndarray, other: np.ndarray) -> Difference:
    """Compare shares of rows that are right, as accuracy is.

    Parameters
    ----------
    one, other
        Which rows each model gets right, bool of shape (rows,).
    """
    from scipy.stats import binomtest

    rows, won, lost = len(one), int((one & ~other).sum()), int((other & ~one).sum())
    test = "both are right on the same rows"
    if won + lost:
        p = binomtest(won, won + lost, 0.5).pvalue
        test = f"{won} rows are right by the first alone and {lost} by the second alone: McNemar's exact p = {p:.2g}"
    return Difference(
        float(one.mean()), float(other.mean()), *interval_of_gain(won, lost, rows, interval_of_share), rows, test
    )


def interval_of_share(count: float, rows: float) -> tuple[float, float]:
    """Return the exact 95 % interval of a share."""
    from scipy.stats import binomtest

    found = binomtest(int(count), int(rows)).proportion_ci(1 - LEVEL, method="exact")
    return float(found.low), float(found.high)


def by_bootstrap(one: Rates, other: Rates, metric: str, rows: int, *, higher: bool) -> Difference:
    """Compare any metric of rows: each time the same rows are drawn for both.

    Parameters
    ----------
    one, other
        Give it for each model.
    metric
        One of what they give.
    rows
        How many there are.
    higher
        Whether more of it is better.
    """
    sign, whole = 1.0 if higher else -1.0, np.ones(rows)

    def gain(weights: np.ndarray) -> dict[str, float]:
        return {metric: sign * (one(weights)[metric] - other(weights)[metric])}

    low, high = intervals(gain, np.arange(rows)).get(metric, (float("-inf"), float("inf")))
    return Difference(one(whole)[metric], other(whole)[metric], low, high, rows, "paired bootstrap", higher)


def within_by_rows(one: np.ndarray, other: np.ndarray, margin: float) -> float:
    """Return how probably the first is worse than the second by no more than a margin: the bootstrap of shares of rows, exactly.

    Of the rows that are drawn, those on which the two differ are binomial, and so are those of them that the second alone gets
    right: no draw is needed, and the order of the rows does not matter.

    Parameters
    ----------
    one, other
        Which rows each model gets right, bool of shape (rows,).
    margin
        Share of rows, at least 0.
    """
    from scipy.stats import binom

    rows, won, lost = len(one), int((one & ~other).sum()), int((other & ~one).sum())
    if won + lost == 0:
        return 1.0
    mean = won + lost
    reach = 10 * sqrt(mean) + 10
    differ = np.arange(max(0, int(mean - reach)), min(rows, int(mean + reach)) + 1)
    most = np.floor((margin * rows + differ) / 2 + _EDGE)
    found = binom.pmf(differ, rows, mean / rows) @ binom.cdf(most, differ, lost / mean)
    return float(min(1.0, found))


def within_by_bootstrap(one: Rates, other: Rates, metric: str, rows: int, margin: float, *, higher: bool) -> float:
    """Return the same for any metric of rows, as the share of resamples; parameters as of `by_bootstrap`."""
    sign = 1.0 if higher else -1.0
    losses = [sign * (other(weights)[metric] - one(weights)[metric]) for weights in resampled(np.arange(rows))]
    return float(np.mean(np.array(losses) <= margin + _EDGE)) if losses else 0.0
