"""What a job learns: the task, and the data with its columns and splits."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.columns import Columned
from unfreeze_api.grammar.model import Model, Rule
from unfreeze_api.grammar.one_of import OneOf
from unfreeze_api.sources import forms
from unfreeze_api.spec.source import DataSource
from unfreeze_api.tasks import TASKS, columns


class TaskSpec(OneOf, kinds=TASKS, noun="task"):
    """What the model learns to do; the labels come from the training data."""


class ColumnsSpec(Columned, columns=columns()):
    """Which columns of a table hold what."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.value) || !has(self.values)", "set value or values, not both", ".values"),
    )


class TrainSpec(Model):
    """The data that the model learns from."""

    source: DataSource = Field(
        description=f"A table (.csv, .jsonl, .parquet, .arrow), several by a pattern (train-*.parquet) or their folder, or a folder with one sub-folder of images per label: {forms('Data')}."
    )
    columns: ColumnsSpec | None = None
    """Names of the columns, when they are not the default ones."""


class HeldOutSpec(Model):
    """Data that the model does not learn from: a source of its own, or a share of the training data."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.source) != has(self.fraction)", "set exactly one of source and fraction"),
        Rule(
            "!has(self.columns) || has(self.source)",
            "columns needs source: a fraction has the columns of train",
            ".columns",
        ),
    )

    source: DataSource | None = None
    """A file or image folder of its own, as in train."""
    fraction: float | None = Field(default=None, gt=0, lt=1)
    """Share of the training data that is held out, chosen at random by training.seed with the shares of the labels
    kept."""
    columns: ColumnsSpec | None = None
    """Names of the columns, when they are not those of train."""


class DataSpec(Model):
    """Training, validation and test data."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.validation.fraction) ? self.validation.fraction : 0.0)"
            " + (has(self.test) && has(self.test.fraction) ? self.test.fraction : 0.0) < 1.0",
            "validation.fraction and test.fraction together must be below 1: something has to be left to train on",
        ),
    )

    train: TrainSpec
    """What the model learns from."""
    validation: HeldOutSpec = HeldOutSpec(fraction=0.1)
    """What checkpoints are compared on. Default: a tenth of the training data."""
    test: HeldOutSpec | None = None
    """What the finished model is measured on, once. Without it the report has no test metrics."""
    on_error: Literal["Fail", "Skip"] | None = None
    """What becomes of the job where a row cannot be read: a broken line or picture, a missing text, label or number. Fail ends it
    and names the row. Skip leaves the row out, up to half of them; status and report say how many. Default: Fail."""
    show_values: bool | None = None
    """Whether messages in status, Events and the operator's log may quote what rows of the data hold: cells, labels, lines.
    Default: false, they name rows and columns, and the quote stands in the pod's log alone."""
