"""What transfer is worth at several sizes of the data, and where that ends, in a sentence. Pure.

Notes
-----
Pretraining multiplies the samples of the new task, by less the more there are (Hernandez et al. 2021, arXiv 2102.01293), so the curves meet
somewhere. Where is a rule of thumb here: the gain is taken for a line over the logarithm of the samples. It is said with an interval, and not at all
where it lies further than ten times the largest size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_LEVEL = 1.959964
"""Standard errors of an interval of 95 %."""
_MISFIT = 0.05
"""Probability with which gains on a line are taken for such that are on none."""
_DRAWS, _SEED = 2000, 0
_FURTHEST = 10
"""How many times the largest size the end is said to lie at most."""
_LEAST_ERROR, _ZERO = 1e-3, 1e-12
"""Share of the largest gain that the error of each has at least, and what counts as none."""
_DIGITS, _SMALL = 3, 0.01
"""Digits behind the point, of gains that are not all smaller than the second."""


@dataclass(frozen=True)
class Point:
    """What the model is worth over another one at a size of the data."""

    samples: int
    """Training samples."""
    gain: float
    """By how much the model is better, above 0 whichever way the metric goes."""
    low: float
    """Lower end of its 95 % interval."""
    high: float

    @property
    def error(self) -> float:
        """Standard error of the gain, of its interval's wider side."""
        return max(self.high - self.gain, self.gain - self.low) / _LEVEL

    def told(self, digits: int) -> str:
        """Return the gain with its interval."""
        return f"{self.gain:+.{digits}f} ({self.low:+.{digits}f} to {self.high:+.{digits}f})"


def digits_of(points: Sequence[Point]) -> int:
    """Return how many digits behind the point gains have, so that three count where all are small."""
    largest = max((abs(value) for one in points for value in (one.gain, one.low, one.high)), default=0.0)
    return _DIGITS if largest >= _SMALL or largest < _ZERO else _DIGITS - 1 - math.floor(math.log10(largest))


def verdict(points: Sequence[Point], *, metric: str, other: str) -> str:
    """Return what the model is worth over another one, and where that ends, in a sentence.

    Parameters
    ----------
    points
        At least one; in any order, several of the same size too.
    metric
        What the gain is of.
    other
        What the model is compared with, like `random weights`.
    """
    ordered = sorted(points, key=lambda point: (point.samples, point.gain, point.low, point.high))
    sizes = sorted({point.samples for point in points})
    last, digits = _mean([point for point in points if point.samples == sizes[-1]]), digits_of(points)
    told = last.told(digits)
    if last.high < 0:
        first = f"{other} do better at {last.samples:,} training samples, by {-last.gain:.{digits}f} {metric}"
        first += f" ({-last.high:.{digits}f} to {-last.low:.{digits}f})"
    elif last.low <= 0:
        first = (
            f"transfer is worth nothing that {metric} shows at {last.samples:,} training samples: {told} over {other}"
        )
    else:
        first = f"transfer is worth {told} {metric} over {other} at {last.samples:,} training samples"
    if len(sizes) == 1:
        return f"{first}; how that changes with more is not known of one size"
    slope, low, high, meets, fits = _line(ordered)
    while len(sizes) > 2 and not (fits and (last.low <= 0 or meets[1] > sizes[-1])):  # noqa: PLR2004 - of two there is always a line
        sizes = sizes[1:]  # what comes is told by the largest ones
        slope, low, high, meets, fits = _line([point for point in ordered if point.samples >= sizes[0]])
    change = f"{slope:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f}) for each ten times as many, from {sizes[0]:,} on"
    if last.low <= 0:
        return f"{first}; the gain changes by {change}"
    if high >= 0:
        return f"{first}; the gain changes by {change}: that it ends is not shown"
    places = [_rounded(max(value, sizes[-1])) for value in meets]  # where the gain is above 0 they have not met
    if meets[0] > _FURTHEST * sizes[-1]:
        return f"{first}; the gain changes by {change}: where it ends is further than {_FURTHEST * sizes[-1]:,} samples"
    upper = f"to {places[2]}" if meets[2] <= _FURTHEST * sizes[-1] else f"to more than {_FURTHEST * sizes[-1]:,}"
    middle = f"at about {places[1]} samples" if meets[1] <= _FURTHEST * sizes[-1] else "beyond what these sizes tell"
    return f"{first}; the gain changes by {change}: the curves meet {middle} ({places[0]} {upper})"


def _mean(points: Sequence[Point]) -> Point:
    """Return the mean of points of one size; its interval is not narrower than theirs, which are of the same rows."""
    gain, low, high = (sum(getattr(point, name) for point in points) / len(points) for name in ("gain", "low", "high"))
    return Point(points[0].samples, gain, low, high)


def _line(points: Sequence[Point]) -> tuple[float, float, float, tuple[float, float, float], bool]:
    """Return the slope of the gain over the logarithm (base 10) of the samples with its 95 % interval, the samples where the line
    is 0: lower end of their interval, itself, upper end; inf where it never is; and whether the gains lie on a line, but for their errors.

    The line is that of least squares, weighted by the gains' errors; intervals are of lines through gains that are drawn with these.
    """
    from scipy.stats import chi2

    places = np.log10([point.samples for point in points])
    gains, errors = (np.array([getattr(point, name) for point in points]) for name in ("gain", "error"))
    errors = np.maximum(errors, max(_LEAST_ERROR * float(np.abs(gains).max()), _ZERO) / _LEVEL)
    weights = 1 / errors**2
    centre = weights @ places / weights.sum()
    share = weights * (places - centre)
    share = share / (share @ (places - centre))

    def meeting(slopes: np.ndarray, means: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            found: np.ndarray = np.where(slopes < 0, 10.0 ** (centre - means / slopes), math.inf)
        return found

    slope, mean = float(share @ gains), float(weights @ gains / weights.sum())
    drawn = gains + errors * np.random.default_rng(_SEED).standard_normal((_DRAWS, len(points)))
    ends = np.sort(meeting(drawn @ share, drawn @ weights / weights.sum()))
    reach = _LEVEL * float(np.sqrt(share**2 @ errors**2))
    low, high = float(ends[int(0.025 * _DRAWS)]), float(ends[int(0.975 * _DRAWS) - 1])
    apart = float(weights @ (gains - mean - slope * (places - centre)) ** 2)
    fits = len(points) <= 2 or apart <= float(chi2.ppf(1 - _MISFIT, len(points) - 2))  # noqa: PLR2004 - a line has two numbers
    meets = low, float(meeting(np.array(slope), np.array(mean))), high
    return slope, slope - reach, slope + reach, meets, fits


def _rounded(samples: float) -> str:
    """Return a number of samples with two digits that count."""
    if not math.isfinite(samples):
        return "no end"
    digits = max(0, math.floor(math.log10(max(samples, 1.0))) - 1)
    return f"{round(samples / 10**digits) * 10**digits:,}"
