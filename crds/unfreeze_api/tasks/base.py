"""What each task of the API declares: a file of its own in this folder, with its options and a `TASK`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unfreeze_api.grammar.columns import Column
from unfreeze_api.grammar.model import Model
from unfreeze_api.grammar.one_of import Variant


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of the evaluation that may choose the best checkpoint.

    Parameters
    ----------
    name
        On the wire: in training.metric, status, report and Prometheus.
    better
        Which of two values is the better one.
    """

    name: str
    better: Literal["Higher", "Lower"] = "Higher"

    def improvement(self, value: float, over: float) -> float:
        """Return by how much a value is better than another; below 0 if it is worse."""
        return value - over if self.better == "Higher" else over - value


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskType(Variant):
    """A task: which models and columns it takes, and what it is measured by."""

    library: Literal["transformers", "timm"]
    """Whose models it takes."""
    or_library: Literal["transformers", "timm"] | None = None
    """Whose else, by what the folder holds."""
    reads: tuple[Column, ...]
    """Columns of a table that it reads, of each row."""
    metrics: tuple[Metric, ...]
    """What training.metric may name; the first is the default."""
    multi_label: tuple[Metric, ...] = ()
    """The same where each sample has any number of labels; none where the task has no such choice."""
    of_scores: tuple[Metric, ...] = ()
    """The same where pairs of samples have scores; none where the task has no such choice."""
    pipeline: str
    """Name of the task on the Hugging Face Hub."""
    targets: str = "Labels"
    """What the column holds that is predicted: Labels is one of a set for each sample."""
    classical: Literal["", "Texts", "Pictures"] = ""
    """What a classical model of it reads; empty where there is none."""
    one_answer: bool = True
    """Whether each sample has one answer, by which models are compared."""
    towers: bool = False
    """Whether it has several encoders, each of another modality, in place of one model."""
    writes: bool = False
    """Whether its models make texts, token by token."""
    no_head: str = ""
    """Why no new head stands on the base, as a part of a message; empty where one does."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Whose models it takes; the first one where a folder does not tell."""
        return (self.library, self.or_library) if self.or_library else (self.library,)

    @property
    def rankable(self) -> bool:
        """Whether each sample has targets of its own that one vector of it may tell: then bases can be ranked by their features."""
        return self.targets in ("Labels", "Numbers")

    @property
    def reads_targets(self) -> bool:
        """Whether its model reads what is right of a sample too, so that samples without any are none."""
        return self.targets not in ("Labels", "Numbers", "Tags")

    @property
    def reads_text(self) -> bool:
        """Whether words go into the model, and nothing else."""
        return self.library == "transformers" and AUDIO not in self.reads and not self.joins

    @property
    def describes(self) -> bool:
        """Whether one of its towers is a language model, which writes of what the other one gives."""
        return self.towers and self.writes

    @property
    def joins(self) -> bool:
        """Whether pictures and texts, or more, are read side by side, each from a column of its own."""
        return self.towers or {IMAGE, TEXT} <= {*self.reads}

    def metric(self, name: str | None, options: Model | None = None) -> Metric:
        """Return a metric of a task with such options by name; the default one for None."""
        metrics = self.measured_by(options)
        return next((metric for metric in metrics if metric.name == name), metrics[0])

    def measured_by(self, options: Model | None) -> tuple[Metric, ...]:
        """Return the metrics of a task with such options; the first is the default."""
        if is_multi_label(options):
            return self.multi_label
        return self.of_scores if self.of_scores and has_scores(options) else self.metrics


def is_multi_label(options: Model | None) -> bool:
    """Return whether a task with such options gives each sample any number of labels."""
    return getattr(options, "labels", None) == "Multi"


def has_scores(options: Model | None) -> bool:
    """Return whether a task with such options learns from pairs of samples with a score."""
    return getattr(options, "annotation", None) == "Scores"


TEXT = Column("text", "with the text")
TEXT_PAIR = Column("textPair", "with the second text of each pair", optional=True)
IMAGE = Column("image", "of a table with the path of the image, relative to the table's folder")
AUDIO = Column("audio", "of a table with the path of the audio file, relative to the table's folder")
LABEL = Column("label", "with the label")
VALUE = Column("value", "with the number to predict")
VALUES = Column("values", "with the numbers to predict, several for each text", optional=True, many=True)

CLASSIFICATION = (
    *(Metric("accuracy"), Metric("macroF1"), Metric("balancedAccuracy"), Metric("auroc"), Metric("mcc")),
    *(Metric("brier", "Lower"), Metric("ece", "Lower"), Metric("loss", "Lower")),
)
"""Metrics of tasks with one label for each sample."""

REGRESSION = (
    Metric("rmse", "Lower"),
    Metric("mae", "Lower"),
    Metric("r2"),
    Metric("pearson"),
    Metric("spearman"),
    Metric("loss", "Lower"),
)
"""Metrics of tasks with one or more numbers for each sample; of several numbers each is a mean over them."""
MULTI_LABEL = (Metric("microF1"), Metric("macroF1"), Metric("mAP"), Metric("subsetAccuracy"), Metric("loss", "Lower"))
"""Metrics of tasks with any number of labels for each sample."""
