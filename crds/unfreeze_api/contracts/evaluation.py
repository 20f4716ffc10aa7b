"""evaluation.json: what the predictions of a finished run say in detail, for people and programs.

Figures of each class stand here, and in no progress, status or series, which have no room for them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unfreeze_api.grammar.model import Model

MAX_CLASSES = 1000
"""Classes that figures are given of; of more, those with the most errors."""
MAX_CONFUSED = 50
"""Classes of a confusion matrix; of more, those with the most errors."""
MAX_PAIRS = 20
MAX_POINTS = 500


class ClassFigures(Model):
    """How good the model is at one class, or one label; as scikit-learn has them, 0 where nothing is divided by."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    """Rows that the data gives it."""
    predicted: int
    """Rows that the model gives it."""
    threshold: float | None = None
    """With several labels: probability from which the validation data's F1 is the highest."""
    f1_at_threshold: float | None = None
    """F1 where it is predicted from that probability on."""


class ConfusedPair(Model):
    """Rows of one class that the model takes for another."""

    label: str
    prediction: str | None = None
    count: int


class Confusion(Model):
    """Rows of each class by what the model says."""

    labels: list[str]
    """Of rows and columns, in the order of the model's outputs."""
    counts: list[list[int]]
    """First index: what the data says; second: what the model says."""
    left_out: int = 0
    """Classes that are in neither, those with the fewest errors."""
    pairs: list[ConfusedPair] = Field(default=[])
    """The most frequent errors of all classes."""


class Bin(Model):
    """Rows whose confidence lies in one interval of several of the same width."""

    rows: int
    confidence: float
    """Their mean."""
    accuracy: float


class Calibration(Model):
    """Whether the model is right as often as it says."""

    ece: float
    """Mean distance of confidence and accuracy (Guo et al. 2017)."""
    nll: float
    """Mean negative log-likelihood of the labels, in nats."""
    calibrated_ece: float | None = None
    """The same of the logits divided by the temperature."""
    calibrated_nll: float | None = None
    bins: list[Bin] = Field(default=[])
    """As the model is, by rising confidence; empty ones are left out."""


class TargetFigures(Model):
    """How good the model is at one number."""

    name: str
    rmse: float | None = None
    """None where the model gives what is no number."""
    mae: float | None = None
    r2: float | None = None
    """None where all numbers are the same."""
    points: list[tuple[float, float]] = Field(default=[])
    """What the data says and what the model says of some rows at even distances."""


class SplitFigures(Model):
    """Figures of one split."""

    rows: int
    """Of predictions: samples, or words."""
    unseen: int = 0
    """Words that the model does not see, which count as it predicts them."""
    intervals: dict[str, tuple[float, float]] = Field(default={})
    """95 % intervals of some metrics, by the bootstrap over samples (Efron 1979)."""
    classes: list[ClassFigures] = Field(default=[])
    classes_left_out: int = 0
    confusion: Confusion | None = None
    calibration: Calibration | None = None
    targets: list[TargetFigures] = Field(default=[])


class Evaluation(Model):
    """What the predictions of a run say."""

    schema_version: Literal[1] = 1
    kind: str
    """What the model answers: OneOf several classes, AnyOf several labels, or Amounts."""
    step: int | None = None
    """That the weights are from."""
    temperature: float | None = None
    """What logits are divided by so that the validation data's likelihood is the highest; none with several labels, of a
    regression, and where the model makes no error."""
    probable_label_errors: int = 0
    """Rows of label-issues.csv whose label is probably wrong."""
    splits: dict[str, SplitFigures]
    """Of validation and test."""
