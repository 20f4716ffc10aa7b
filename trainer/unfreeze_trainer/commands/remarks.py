"""What to look at in some data before a model is trained on it, in sentences for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks import task_type
from unfreeze_api.tasks.base import is_multi_label
from unfreeze_trainer.commands.surveyed import Repeated, SplitSurvey, Survey
from unfreeze_trainer.errors import some_of

_NEARLY_ALL = 0.95
_TIMES = 10
"""How many times as often as the rarest label the most frequent one stands there, from where it is said."""
_FEW = 5
"""Samples of a label that are few to learn it from, and to measure it by."""
_SMALL_PICTURE = 32


def remarks(job: ResolvedJob, found: Survey) -> list[str]:
    """Return them, those about what would end a job first."""
    said = [*_broken(job, found)]
    if train := found.splits.get("train"):
        said += list(_labels(job, train))
    said += [line for name, split in found.splits.items() for line in _lengths(job, name, split)]
    if train:
        unseen = {
            name: [label for label, count in train.labels.items() if count and not split.labels.get(label)]
            for name, split in found.splits.items()
            if name != "train"
        }
        said += [
            f"{name} has no sample of {_names(labels)}: nothing measures how well they are learned"
            for name, labels in unseen.items()
            if labels
        ]
    said += [line for name, split in found.splits.items() for line in _within(name, split.repeated)]
    said += list(_between(found.repeated))
    return said


def _broken(job: ResolvedJob, found: Survey) -> Iterator[str]:
    for name, source in found.sources.items():
        if not source.left_out:
            continue
        what = (
            "they are left out (spec.data.onError Skip)"
            if job.data.on_error == "Skip"
            else "a job ends at the first one. Mend them, or set spec.data.onError to Skip"
        )
        yield f"{name}: {source.left_out:,} rows or files cannot be read: {what}"


def _labels(job: ResolvedJob, train: SplitSurvey) -> Iterator[str]:
    counts = {label: count for label, count in train.labels.items() if count}
    total = train.samples if train.without_label is not None else sum(counts.values())
    if not counts:
        return
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[most] >= _NEARLY_ALL * total:
        yield (
            f"train: {100 * counts[most] / total:.1f} % have the label {_shown(most)}, and always guessing it is right as often:"
            f" have more of the others{_remedy(job)}"
        )
    elif counts[most] >= _TIMES * counts[least]:
        yield (
            f"train: the labels are imbalanced: {counts[most]:,} have {_shown(most)}, {counts[least]:,} have"
            f" {_shown(least)}{_remedy(job)}"
        )
    if few := [label for label, count in counts.items() if count < _FEW]:
        yield f"train: fewer than {_FEW} samples of {_names(few)}: hardly enough to learn from"


def _remedy(job: ResolvedJob) -> str:
    """Return what a job can do about imbalance: which metrics count labels alike, and which option learns them so."""
    task = task_type(job.task.type)
    metrics = task.multi_label if is_multi_label(job.task.options) else task.metrics
    alike = [metric.name for metric in metrics if metric.name in ("macroF1", "balancedAccuracy")]
    counts = "count" if len(alike) > 1 else "counts"
    measured = f". {' and '.join(alike)} {counts} labels alike (spec.training.metric)" if alike else ""
    learned = ", classWeights: Balanced has them learned alike" if hasattr(job.task.options, "class_weights") else ""
    return measured + learned


def _lengths(job: ResolvedJob, name: str, split: SplitSurvey) -> Iterator[str]:
    limit = getattr(job.task.options, "max_length", None)
    tokens, seconds = split.lengths.get("tokens"), split.lengths.get("seconds")
    if tokens and limit and tokens.most > limit:
        much = "at least one in twenty texts is" if tokens.most_have > limit else "some texts are"
        yield f"{name}: {much} longer than maxLength {limit} and cut there: the longest has {tokens.most:,.0f} tokens"
    most = getattr(job.task.options, "max_seconds", None)
    if seconds and most and seconds.most > most:
        yield f"{name}: clips are longer than maxSeconds {most:g} and cut there: the longest lasts {seconds.most:,.1f} s"
    if len(split.kinds) > 1 and seconds:
        yield f"{name}: clips have {len(split.kinds)} sampling rates ({', '.join(split.kinds)}): they are resampled to the model's"
    width, height = split.lengths.get("width"), split.lengths.get("height")
    if width and height and min(width.least, height.least) < _SMALL_PICTURE:
        small = f"{width.least:.0f} x {height.least:.0f}"
        yield f"{name}: pictures are as small as {small} pixels: they are scaled up to what the model takes"


def _within(name: str, repeated: Repeated | None) -> Iterator[str]:
    if repeated and repeated.samples:
        remark = f"{name}: {repeated.samples:,} samples repeat one before them"
        if repeated.conflicting:
            remark += (
                f", {repeated.conflicting:,} of them with another label, number or tags: a model cannot get both right"
            )
        yield remark


def _between(repeated: Mapping[str, Repeated]) -> Iterator[str]:
    for pair, count in repeated.items():
        remark = f"{count.samples:,} samples stand twice, {pair}: what is measured on them was seen before"
        if count.conflicting:
            remark += f"; {count.conflicting:,} of them with another label, number or tags"
        yield remark


def _names(labels: list[str]) -> str:
    return some_of([_shown(label) for label in labels], 5)


def _shown(label: str) -> str:
    return repr(label if len(label) <= 40 else label[:39] + "\u2026")  # noqa: PLR2004 - characters of a line
