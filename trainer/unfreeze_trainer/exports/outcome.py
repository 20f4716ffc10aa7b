"""How a run has ended, in one sentence for people: how good, how sure, beside what a guess would reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, sqrt

from unfreeze_api.contracts.decision import Decision
from unfreeze_api.contracts.evaluation import Evaluation, SplitFigures
from unfreeze_api.contracts.report import Report, Rollback
from unfreeze_api.grammar.amounts import figure
from unfreeze_trainer.usefulness import compared, guess_of


def in_json(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Return figures as JSON has them: None for what is no number, since it has no NaN."""
    return {name: value if isfinite(value) else None for name, value in figures.items()}


def outcome(report: Report, evaluation: Evaluation | None) -> str:
    """Return the sentence: the metric that chose, on the test data if there are any, its 95 % interval and the baseline.

    What somebody should act on stands before it.
    """
    split, metrics = ("test", report.results.test) if report.results.test else ("validation", report.results.validation)
    figures = evaluation.splits.get(split) if evaluation else None
    sentence = f"The model's {report.metric} is {figure(metrics.get(report.metric))} on {report.data.splits.get(split, 0):,} {split} samples"
    if figures and (interval := figures.intervals.get(report.metric)):
        sentence += f" (95 % interval {figure(interval[0])} to {figure(interval[1])})"
    first = [*_seen(report), *(one.message for one in report.decisions if one.warning and one.type != "Useful")]
    beside, worth = _beside(report, metrics, figures), report.usefulness
    if beside and worth is not None and not worth.better:  # else a good figure is read, and what it is worth is not
        first, beside = [*first, beside], ""
    return f"{''.join(f'{capital(one)}. ' for one in first)}{sentence}{f'; {beside}' if beside else ''}."


def _seen(report: Report) -> list[str]:
    """Return which held-out samples were trained on, where they may flatter a share by its standard error, .5 / sqrt(samples) at most, or more."""
    found = []
    for split, total in report.data.splits.items():
        count = report.data.overlaps.get(f"{split} in train", 0)
        if count and count >= sqrt(total) / 2:
            found.append(
                f"{count:,} of the {total:,} {split} samples were trained on: what is measured on them flatters"
            )
    return found


def in_order(decisions: Sequence[Decision]) -> list[Decision]:
    """Return decisions as a reader wants them: what somebody should act on, what came out of it all, how it went on the way."""
    places = {kind: place for place, kind in enumerate(_FIRST)}
    return sorted(decisions, key=lambda one: (not one.warning, places.get(one.type, len(places))))


_FIRST = (
    "Strategy",
    "Base",
    "BetterThanBase",
    "Stage",
    "Baseline",
    "Scratch",
    "Forgetting",
    "Useful",
    "TooShort",
    "Budget",
)
"""Decisions that say what a run has come to, in their order; the others stand behind them as they were taken."""


def capital(text: str) -> str:
    """Return a sentence as it stands at a beginning; the name of a source stays as it is."""
    return text if "://" in text.partition(" ")[0] else text[:1].upper() + text[1:]


def went_back(rollback: Rollback) -> str:
    """Return what there is to say of a rollback."""
    return (
        f"at step {rollback.step} the learning rates were found to destroy the model, and the training went on from step"
        f" {rollback.to} with rates times {rollback.factor:.2g}: {rollback.message}"
    )


def _error_of_mean(metrics: Mapping[str, float], figures: SplitFigures | None) -> float | None:
    """Return the rmse of always saying the mean, of several numbers the mean over them; None where nobody knows."""
    pairs = [(one.rmse, one.r2) for one in figures.targets] if figures and figures.targets else []
    pairs = pairs or [(metrics["rmse"], metrics.get("r2"))]
    found = [
        error / sqrt(1 - r2) for error, r2 in pairs if error is not None and r2 is not None and r2 < 1
    ]  # not of NaN
    return sum(found) / len(found) if len(found) == len(pairs) and isfinite(sum(found)) else None


def _beside(report: Report, metrics: dict[str, float], figures: SplitFigures | None) -> str:
    """Return what the model is compared with."""
    worth = report.usefulness
    if worth is not None and (not worth.better or "rmse" not in metrics):
        gain = f"{figure(worth.gain_low, sign='+')} to {figure(worth.gain_high, sign='+')}"
        whose = "its" if worth.better else "the model's"
        than = "better than" if worth.better else "worse than" if worth.gain_high < 0 else "not surely better than"
        return (
            f"on the validation data {whose} {worth.compared or compared(report.metric)} is {than} that of"
            f" always {guess_of(worth)}, {figure(worth.majority)}{f', by {gain}' if worth.better else f' (difference {gain})'}"
        )
    if "rmse" in metrics and (mean := _error_of_mean(metrics, figures)) is not None:
        if report.metric == "rmse":
            return f"always saying the mean has {figure(mean)}"
        return f"its rmse is {figure(metrics['rmse'])}, that of always saying the mean about {figure(mean)}"
    return ""
