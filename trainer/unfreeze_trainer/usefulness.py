"""Whether a model is better than always guessing one class, the same labels or the mean: on the validation data, by a 95 % interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import hypot, isfinite, sqrt

import numpy as np

from unfreeze_api.contracts.decision import Decision, Evidence
from unfreeze_api.contracts.report import Usefulness
from unfreeze_api.grammar.amounts import figure
from unfreeze_api.tasks.base import Metric

_Z = 1.959964
"""Standard deviations of a normal distribution within which 95 % of it lie."""
_TAIL = 0.025
"""How often an interval of 95 % lies above what it is of, and how often below."""
_ROUNDING = 1e-9
"""Samples that are none, but for rounding."""
_OF_CLASSES = ("macroF1", "balancedAccuracy", "auroc", "mcc")
_MICRO_F1, _EXPLAINED, _SPARED = "micro F1", "r2", "share of the mean absolute error that is spared"
_CORRELATIONS = {"pearson": ("Pearson correlation", 1.0), "spearman": ("Spearman correlation", 1.03)}
"""Names of correlations, and how many times 1 / sqrt(samples - 3) the standard error of Fisher's z of each is."""
_FEWEST, _SURE = 4, 1 - 1e-9
_EPSILON = float(np.finfo(np.float32).eps)
_WORST = -1e6
"""What a sample counts that a model has no number for."""
_LABEL, _SHOWN = 40, 3
"""Characters of a label, and labels, that a message has."""


def compared(metric: str) -> str:
    """Return what of a model `judge` compares with a constant answer's where a job has a metric."""
    return "balanced accuracy" if metric in _OF_CLASSES else "accuracy"


def guess_of(found: Usefulness) -> str:
    """Return what a model was compared with, to stand behind `always`."""
    if found.compared is None:
        return "guessing one class"
    of_numbers = "saying the median" if found.compared == _SPARED else "saying the mean"
    return "guessing the same labels" if found.compared == _MICRO_F1 else of_numbers


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
    count = int(actual.sum())
    guess = f"guessing {_shown(labels[int(actual.argmax())])}"
    return _told(name, f"{count} validation {noun}", guess, value=value, chance=chance, low=low, high=high)


def judge_sets(
    hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray, count: float, labels: Sequence[str]
) -> Usefulness:
    """Compare a model that gives each sample any number of labels with the best constant answer, by micro F1.

    Parameters
    ----------
    hits, predicted, actual
        Of each label: samples that have it and are given it, that are given it, that have it; float64 of shape (labels,).
    count
        Samples, at least one of which has a label.
    labels
        In the order of label ids.

    Notes
    -----
    With g the guess's F1, the model's is above it where the sum of 2 [given and had] - g ([given] + [had]) over samples and labels is
    above 0: the interval is the normal one of that sum. Labels of a sample are not drawn one by one: the variance is taken as many times as
    samples have labels.
    """
    order = np.argsort(-actual, kind="stable")
    ranks = np.arange(1, len(labels) + 1)
    guesses = 2 * actual[order].cumsum() / (ranks * count + actual.sum())
    most = int(guesses.argmax())
    chance, total, right = float(guesses[most]), float((predicted + actual).sum()), float(hits.sum())
    value = 2 * right / total
    square = right * (2 - 2 * chance) ** 2 + (total - 2 * right) * chance**2
    reach = _Z * sqrt(square * max(1.0, float(actual.sum()) / count)) / total
    guess = " and ".join(_shown(labels[place]) for place in order[: most + 1][:_SHOWN])
    guess = f"guessing {guess} and {most + 1 - _SHOWN} more" if most >= _SHOWN else f"guessing {guess}"
    low, high = value - chance - reach, value - chance + reach
    found = _told(_MICRO_F1, f"{int(count)} validation samples", guess, value=value, chance=chance, low=low, high=high)
    return found.model_copy(update={"compared": _MICRO_F1})


def judge_numbers(actual: np.ndarray, predicted: np.ndarray, metric: str) -> Usefulness | None:
    """Compare a model that predicts numbers with the mean of what there is; None where that has no meaning.

    Parameters
    ----------
    actual, predicted
        float64 of shape (samples, targets).
    metric
        The job's: where it is a correlation, in which the mean has 0, that is compared; where it is mae the share of the absolute error that
        always saying the median makes and the model does not; otherwise the share of the variance that is explained.

    Notes
    -----
    The interval of r2 is Student's (1908) of the squared errors of mean and model, sample by sample, of which r2 is a ratio (Cochran 1977, Sampling
    Techniques, 6.4): a sample far from the mean spares much and has much to spare, which is no doubt of the share. That of a correlation is Fisher's (1921,
    of ranks with the variance of Fieller, Hartley and Pearson 1957, doi:10.1093/biomet/44.3-4.470). Of several targets the means are taken,
    but for those that vary by less than what float32 tells apart: nothing is to be predicted there.
    """
    from scipy.stats import t

    count = len(actual)
    if count < _FEWEST:
        return None
    spans = np.ptp(actual, axis=0)
    varies = spans > _EPSILON * np.abs(actual).max(axis=0)
    if not varies.any():
        return None
    first, spans = actual[0, varies], spans[varies]
    actual, predicted = (actual[:, varies] - first) / spans, (predicted[:, varies] - first) / spans
    if metric in _CORRELATIONS:
        name, times = _CORRELATIONS[metric]
        value = float(np.mean([_correlation(*pair, metric) for pair in zip(actual.T, predicted.T, strict=True)]))
        middle, reach = np.arctanh(np.clip(value, -_SURE, _SURE)), times * _Z / sqrt(count - 3)
        low, high = float(np.tanh(middle - reach)), float(np.tanh(middle + reach))
    else:
        absolute = metric == "mae"
        name, power = (_SPARED, 1) if absolute else (_EXPLAINED, 2)
        middle = np.median(actual, axis=0) if absolute else actual.mean(axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            lost = np.abs(actual - middle) ** power
            gains = (lost - np.abs(actual - predicted) ** power) / lost.mean(axis=0)
        gains = np.maximum(np.nan_to_num(gains, nan=_WORST, neginf=_WORST), _WORST)
        value, shares = float(gains.mean()), np.maximum(gains.mean(axis=0), 0)
        apart = (gains - shares * lost / lost.mean(axis=0)).mean(axis=1)
        reach = float(t.ppf(1 - _TAIL, count - 1) * apart.std(ddof=1)) / sqrt(count)
        low, high = value - reach, value + reach  # its middle tells the guard what is more probable
    guess = "saying the median" if name == _SPARED else "saying the mean"
    found = _told(name, f"{count} validation samples", guess, value=value, chance=0.0, low=low, high=high)
    return found.model_copy(update={"compared": name})


def _correlation(actual: np.ndarray, predicted: np.ndarray, metric: str) -> float:
    """Return a correlation; 0 where predictions do not vary, or are no numbers."""
    from scipy.stats import rankdata

    if not np.isfinite(predicted).all() or (predicted == predicted[0]).all():
        return 0.0
    if metric == "spearman":
        actual, predicted = rankdata(actual), rankdata(predicted)
    found = np.corrcoef(actual, predicted / np.abs(predicted).max())[0, 1]
    return float(found) if isfinite(found) else 0.0


def _shown(label: str) -> str:
    return repr(label if len(label) <= _LABEL else label[: _LABEL - 1] + "\u2026")


def _told(name: str, where: str, guess: str, *, value: float, chance: float, low: float, high: float) -> Usefulness:
    sentence = (
        f"on {where} the {name} is {figure(value)}, that of always {guess} is {figure(chance)}; the 95 %"
        f" interval of the difference is {figure(low, sign='+')} to {figure(high, sign='+')}"
    )
    if low <= 0:
        sentence += (
            ". Look at the labels, lower spec.strategy.learningRate, train longer or more of the model"
            if value <= chance
            else ". That may be chance: hold out more validation data, or train longer"
        )
    return Usefulness(better=low > 0, majority=chance, gain_low=low, gain_high=high, message=sentence)


def decided(found: Usefulness, metric: str, step: int) -> Decision:
    """Return a verdict as a decision of the run, at a step."""
    name = found.compared or compared(metric)
    guess = guess_of(found)
    return Decision(
        type="Useful",
        answer="Yes" if found.better else "NotSurely",
        question=f"Is the model better than always {guess}?",
        message=found.message,
        step=step,
        warning=None if found.better else True,
        evidence=[Evidence(name=f"{name} beyond that of always {guess}", low=found.gain_low, high=found.gain_high)],
        otherwise=f"an interval that {'holds 0' if found.better else 'lies above 0'}",
        alternative=f"always {guess}: {name} {figure(found.majority)}",
    )


def beside_base(
    metric: Metric, before: float, after: float, *, samples: int, step: int, new_heads: bool = False
) -> Decision:
    """Return whether a model is better than the one that its training began with, which did the task already.

    Parameters
    ----------
    metric
        The job's.
    before, after
        Its values on the validation data, before the first step and with the best weights.
    samples
        Of the validation data.
    step
        That the run is at.
    new_heads
        Whether the base may have brought no heads for the task: what it did with new ones is no reason to take it as it is.
    """
    better = metric.improvement(after, before) > 0
    message = f"the model's {metric.name} on {samples:,} validation samples is {figure(after)}, that of its base before the first step was {figure(before)}"
    if not better:
        instead = "Train longer" if new_heads else "Use the base as it is"
        message += f": the training has not made it better. {instead}, lower spec.strategy.learningRate, train less of it or with an adapter"
    return Decision(
        type="BetterThanBase",
        answer="Yes" if better else "No",
        question="Is the model better than the base that it began with?",
        message=message,
        step=step,
        warning=None if better else True,
        evidence=[
            Evidence(name=f"{metric.name} of the base", value=before),
            Evidence(name=f"{metric.name} of the model", value=after),
        ],
        otherwise=f"a {'lower' if better == (metric.better == 'Higher') else 'higher'} {metric.name} of the model",
        alternative=f"the base as it is: {metric.name} {figure(before)}",
    )


def interval_of_gain(
    won: float, lost: float, rows: float, interval: Callable[[float, float], tuple[float, float]]
) -> tuple[float, float]:
    """Return the 95 % interval of by how much one of two models is right more often than the other, as a share of the rows.

    Only rows on which they differ tell which is better (McNemar 1947): the interval excludes 0 exactly where that of the share that is won
    of these excludes a half. How many of these there are is not known any better: of other rows it would be another number. So the
    gain is a product of two shares, and the distances of their ends are added by their squares (Zou and Donner 2008, doi:10.1002/sim.3095).

    Parameters
    ----------
    won, lost, rows
        Rows that the one alone gets right, that the other alone does, and all of them, at least 1.
    interval
        Returns the 95 % interval of a share, of a count and of how many.
    """
    differ, (fewest, most) = (won + lost) / rows, interval(won + lost, rows)
    if not differ:
        return -most, most
    balance, (least, highest) = (won - lost) / (won + lost), (2 * end - 1 for end in interval(won, won + lost))
    gain, more, less = differ * balance, most - differ, differ - fewest
    down, up = (less, more) if balance > 0 else (more, less)
    low = gain - hypot(differ * (balance - least), balance * down)
    high = gain + hypot(differ * (highest - balance), balance * up)
    if least > 0:
        low = max(low, fewest * least)
    if highest < 0:
        high = min(high, fewest * highest)
    return max(-1.0, low), min(1.0, high)


def _plain(hits: np.ndarray, actual: np.ndarray) -> tuple[float, float, float, float]:
    """Return accuracy, that of the most frequent class, and the interval of the difference.

    Of shares it is the score interval (Wilson 1927).
    """
    count, guess = actual.sum(), int(actual.argmax())
    won, lost = hits.sum() - hits[guess], actual[guess] - hits[guess]
    low, high = interval_of_gain(float(won), float(lost), float(count), wilson)
    return hits.sum() / count, actual[guess] / count, low, high


def wilson(hits: float, count: float) -> tuple[float, float]:
    """Return the 95 % interval of a share by its score (Wilson 1927), of a count and of how many."""
    share, square = hits / count, _Z * _Z
    middle = share + square / (2 * count)
    reach = _Z * sqrt(share * (1 - share) / count + square / (4 * count * count))
    return (middle - reach) / (1 + square / count), (middle + reach) / (1 + square / count)


def _balanced(hits: np.ndarray, actual: np.ndarray) -> tuple[float, float, float, float]:
    """Return balanced accuracy, that of any constant answer, and the interval of the difference.

    Whatever of two it is wider for: where all classes were told alike, it is the exact one of a share (Clopper and Pearson 1934) of as many
    samples as would tell it as well, the squared number of classes over the sum of what one over each one's samples is; where they were
    not, the distances of each recall's ends (Wilson 1927) are added by their squares (Zou and Donner 2008, doi:10.1002/sim.3095). No class is
    drawn towards a half, as by samples that are added to each: what is small in one class adds up over many, and 60 of them would be
    told by lots surely better than by lots.
    """
    from scipy.stats import beta

    hits, actual = hits[actual > 0], actual[actual > 0]
    classes, recalls = len(actual), hits / actual
    value, chance = float(recalls.mean()), 1 / classes
    count = classes**2 / float((1 / actual).sum())
    right, wrong = value * count, (1 - value) * count
    low = float(beta.ppf(_TAIL, right, wrong + 1)) if right > 0 else 0.0
    high = float(beta.ppf(1 - _TAIL, right + 1, wrong)) if wrong > _ROUNDING else 1.0
    lowest, highest = np.array([wilson(*pair) for pair in zip(hits, actual, strict=True)]).T
    down, up = (float(np.linalg.norm(ends - recalls)) / classes for ends in (lowest, highest))
    return value, chance, min(low, value - down) - chance, max(high, value + up) - chance
