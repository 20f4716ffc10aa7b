"""The figures of a training, a row each: agent, operator and trackers report what stands here, and nothing else.

A row names a field of `Progress`. A figure of a field of `ProgressInfo` stands in the job's status besides; of the others the
operator knows what the leader answered last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic.alias_generators import to_camel

from unfreeze_api.contracts import budget
from unfreeze_api.contracts.progress import Progress, ProgressInfo

POD_PREFIX, JOB_PREFIX = "unfreeze_training_", "unfreeze_job_"
"""What the series of trainer pods begin with, and those of jobs on the operator's page."""


@dataclass(frozen=True, slots=True)
class Label:
    """The label of a figure that has several values at a time.

    Parameters
    ----------
    name
        Its name in Prometheus.
    bound
        Takes values by label as a trainer reported them, and returns those that have a place.
    group
        Labels of one group take their values from one set, which is bounded for each job.
    """

    name: str
    bound: Callable[[Mapping[str, float]], dict[str, float]]
    group: Literal["metric", "block"]


METRIC = Label("metric", budget.metrics, "metric")
BLOCK = Label("block", budget.rates, "block")
TRAINING_PHASE = Label("training_phase", lambda found: {budget.block(name): found[name] for name in found}, "block")
"""Phases are named after blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure of the training.

    Parameters
    ----------
    name
        Name of its series without prefix, and unless they are given what the others follow from.
    about
        What it is, in a sentence.
    field
        Field of `Progress` that it is read from; by default the one that has its name.
    read
        Gives it from all that is reported, None where it is not known; with a label a value for each of the label's. By
        default the field's value.
    kind
        Whether it goes up and down, or counts.
    label
        Its label, if it has several values at a time.
    pod, job
        Whether it stands at /metrics of a pod and of the operator; there under another name when that is given.
    tracker
        Whether it is reported to trackers; under another name when that is given.
    """

    name: str
    about: str
    field: str = ""
    read: Callable[[Progress], float | Mapping[str, float] | None] | None = None
    kind: Literal["Gauge", "Counter"] = "Gauge"
    label: Label | None = None
    pod: bool | str = True
    job: bool | str = True
    tracker: bool | str = True

    @property
    def in_status(self) -> bool:
        """Whether the job's status has it too."""
        return (self.field or self.name) in ProgressInfo.model_fields

    def values(self, progress: Progress, *, bounded: bool = False) -> Iterator[tuple[tuple[str, ...], float]]:
        """Yield its values, each with that of its label, if it has one: all, or those that have a place."""
        found: Any = self.read(progress) if self.read else getattr(progress, self.field or self.name)
        if self.label is not None:
            yield from (((name,), value) for name, value in (self.label.bound(found) if bounded else found).items())
        elif found is not None:
            yield (), found

    def tracked(self, progress: Progress) -> dict[str, float]:
        """Return what is reported of it to trackers."""
        kind = to_camel(self.name) if self.label else f"train/{to_camel(self.name)}"
        name = self.tracker if isinstance(self.tracker, str) else kind
        return {"/".join((name, *labels)): value for labels, value in self.values(progress)}


def _ratio(progress: Progress) -> float:
    return progress.step / progress.total_steps if progress.total_steps else 0.0


def _loss(progress: Progress) -> float | None:
    return math.nan if progress.loss is None and progress.step else progress.loss


def _phase(progress: Progress) -> dict[str, float]:
    return {progress.phase_name: progress.phase_index + 1.0} if progress.phase_name else {}


def _age(progress: Progress) -> float | None:
    return (datetime.now(UTC) - progress.checkpoint.time).total_seconds() if progress.checkpoint else None


FIGURES: tuple[Figure, ...] = (
    Figure(
        name="progress_ratio",
        about="Share of the planned optimizer steps that is done.",
        field="step",
        read=_ratio,
        job=False,
        tracker=False,
    ),
    Figure(name="step", about="Optimizer steps done.", tracker=False),
    Figure(name="epoch", about="Passes over the training data done.", job=False),
    Figure(
        name="phase",
        about="Number of the phase that trains, from 1.",
        field="phase_name",
        read=_phase,
        label=TRAINING_PHASE,
        job="training_phase",
        tracker=False,
    ),
    Figure(
        name="phase",
        about="Number of the phase that trains, from 1.",
        field="phase_index",
        read=lambda progress: progress.phase_index + 1.0,
        pod=False,
        job=False,
    ),
    Figure(
        name="loss",
        about="Training loss, smoothed over the last steps; NaN when it is not finite.",
        read=_loss,
        job="training_loss",
    ),
    Figure(
        name="validation_metric",
        about="Newest validation metrics.",
        field="metrics",
        label=METRIC,
        tracker=False,  # reported when they are measured
    ),
    Figure(
        name="learning_rate",
        about="Present learning rate of each trained block.",
        field="learning_rates",
        label=BLOCK,
    ),
    Figure(name="samples_per_second", about="Samples of all workers together, per second."),
    Figure(name="tokens_per_second", about="Tokens of all workers together, per second, for text."),
    Figure(name="eta_seconds", about="Seconds that are left.", job=False, tracker=False),
    Figure(
        name="checkpoint_age_seconds",
        about="Age of the newest complete checkpoint.",
        field="checkpoint",
        read=_age,
        job=False,  # the operator counts from the start before the first one
        tracker=False,
    ),
    Figure(
        name="fetched_bytes",
        about="Bytes of a model or data at a hub that are here, while they are fetched.",
        tracker=False,
    ),
    Figure(name="fetch_total_bytes", about="Bytes of what is fetched, in all.", field="total_bytes", tracker=False),
    Figure(name="world_size", about="Workers that train together.", job=False, tracker=False),
    Figure(
        name="restarts",
        about="Times that this pod's workers were started again.",
        kind="Counter",
        job=False,
        tracker=False,
    ),
    Figure(
        name="skipped_steps",
        about="Optimizer steps that changed nothing, since their gradients were not finite.",
        kind="Counter",
        job=False,
        tracker=False,
    ),
    Figure(
        name="rollbacks",
        about="Times that the training went back to an earlier step, with lower learning rates.",
        kind="Counter",
        job=False,
    ),
    Figure(
        name="cache_hits",
        about="Samples that frozen blocks did not have to compute, on the pod's first worker.",
        kind="Counter",
        job=False,
        tracker=False,
    ),
    Figure(
        name="cache_reused",
        about="Samples that frozen blocks did not have to compute even once, since they were in spec.sources.featureCache, of the pod's first worker.",
        kind="Counter",
        job=False,
        tracker=False,
    ),
    Figure(
        name="cache_bytes",
        about="What the pod's first worker keeps of the outputs of frozen blocks.",
        job=False,
        tracker=False,
    ),
    Figure(
        name="cache_saved_seconds",
        about="About the seconds that this has saved, less those that it took to compute them.",
        job=False,
        tracker=False,
    ),
)
"""All of them, in the order in which they are reported."""


def at(place: Literal["pod", "job"]) -> dict[str, Figure]:
    """Return the figures at /metrics of a pod or, of its job, of the operator, by the names that they have there."""
    named = [(figure, getattr(figure, place)) for figure in FIGURES]
    return {name if isinstance(name, str) else figure.name: figure for figure, name in named if name}


def tracked(progress: Progress) -> dict[str, float]:
    """Return the figures that trackers get, by the names that they have there."""
    return {name: value for figure in FIGURES if figure.tracker for name, value in figure.tracked(progress).items()}
