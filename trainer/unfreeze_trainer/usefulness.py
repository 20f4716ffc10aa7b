"""Whether a classifier is better than always guessing one class: on the validation data, by a 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from unfreeze_api.contracts.decision import Decision, Evidence
from unfreeze_api.contracts.report import Usefulness

_Z = 1.959964
"""Standard deviations of a normal distribution within which 95 % of it lie."""
_OF_CLASSES = ("macroF1", "balancedAccuracy", "auroc", "mcc")
_LABEL = 40
"""Characters of a label that a message has."""


def compared(metric: str) -> str:
    """Return what of a model `judge` compares with a constant answer's where a job has a metric."""
    return "balanced accuracy" if metric in _OF_CLASSES else "accuracy"


def judge(
    hits: np.ndarray,
    actual: np.ndarray,
    labels: Sequence[str],
    metric: str,
    *,
    noun: str = "samples",
    reach: float = 0.0,
) -> Usefulness:
    """Compare a model with the best constant answer.

    Parameters
    ----------
    hits, actual
        Samples of each class that the model got right, and all of them; float64 of shape (classes,), at least one sample.
    labels
        In the order of class ids.
    metric
        The job's: macroF1, balancedAccuracy, auroc and mcc weigh classes alike, so the model's balanced accuracy is compared, in which
        each constant answer has 1 / classes; otherwise its accuracy.
    noun
        What is counted.
    reach
        How far the interval reaches to both sides of the difference at least, where what is counted hangs together.
    """
    name = compared(metric)
    value, chance, low, high = (_balanced if metric in _OF_CLASSES else _plain)(hits, actual)
    low, high = min(low, value - chance - reach), max(high, value - chance + reach)
    better, count = low > 0, int(actual.sum())
    guess = labels[int(actual.argmax())]
    shown = repr(guess if len(guess) <= _LABEL else guess[: _LABEL - 1] + "\u2026")
    sentence = (
        f"on {count} validation {noun} the {name} is {value:.3f}, that of always guessing {shown} is {chance:.3f}; the 95 %"
        f" interval of the difference is {low:+.3f} to {high:+.3f}"
    )
    if not better:
        sentence += (
            ". Look at the labels, lower spec.strategy.learningRate, train longer or more of the model"
            if value <= chance
            else ". That may be chance: hold out more validation data, or train longer"
        )
    return Usefulness(better=better, majority=chance, gain_low=low, gain_high=high, message=sentence)


def decided(found: Usefulness, metric: str, step: int) -> Decision:
    """Return a verdict as a decision of the run, at a step."""
    name = compared(metric)
    return Decision(
        type="Useful",
        answer="Yes" if found.better else "NotSurely",
        question="Is the model better than always guessing one class?",
        message=found.message,
        step=step,
        warning=None if found.better else True,
        evidence=[
            Evidence(name=f"{name} beyond that of always guessing one class", low=found.gain_low, high=found.gain_high)
        ],
        otherwise=f"an interval that {'holds 0' if found.better else 'lies above 0'}",
        alternative=f"always guessing one class: {name} {found.majority:.3f}",
    )


def _plain(hits: np.ndarray, actual: np.ndarray) -> tuple[float, float, float, float]:
    """Return accuracy, that of the most frequent class, and the interval of the difference.

    Of the samples that one of the two gets right and the other wrong, the share that is the model's has a score interval
    (Wilson 1927); the others tell nothing (McNemar 1947).
    """
    count, guess = actual.sum(), int(actual.argmax())
    won, lost = hits.sum() - hits[guess], actual[guess] - hits[guess]
    low, high = _wilson(won, won + lost)
    differ = (won + lost) / count
    return hits.sum() / count, actual[guess] / count, differ * (2 * low - 1), differ * (2 * high - 1)


def _wilson(hits: float, count: float) -> tuple[float, float]:
    if count == 0:
        return 0.5, 0.5
    share, square = hits / count, _Z * _Z
    middle = share + square / (2 * count)
    reach = _Z * sqrt(share * (1 - share) / count + square / (4 * count * count))
    return (middle - reach) / (1 + square / count), (middle + reach) / (1 + square / count)


def _balanced(hits: np.ndarray, actual: np.ndarray) -> tuple[float, float, float, float]:
    """Return balanced accuracy, that of any constant answer, and the interval of the difference.

    Each class's recall has mean and variance of its share with two hits and two misses more (Agresti and Coull 1998): none
    is certain however few samples it has.
    """
    hits, actual = hits[actual > 0], actual[actual > 0]
    value, chance = float((hits / actual).mean()), 1 / len(actual)
    share = (hits + 2) / (actual + 4)
    reach = _Z * sqrt(float((share * (1 - share) / (actual + 4)).sum())) / len(actual)
    middle = float(share.mean()) - chance
    return value, chance, middle - reach, middle + reach
