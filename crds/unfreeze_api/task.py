"""What a job learns: the task, and the data with its columns and splits."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from unfreeze_api.fields import Column, Source
from unfreeze_api.model import Model, Rule


class TextClassificationSpec(Model):
    """Options of text classification."""

    max_length: int = Field(default=128, ge=1, le=131072)
    """Tokens kept of each text; longer texts are cut."""


class ImageClassificationSpec(Model):
    """Options of image classification."""

    image_size: int | None = Field(default=None, ge=8, le=4096)
    """Height and width in pixels that images are resized to. Without it: the size that the model was pretrained
    with."""
    augmentation: Literal["None", "RandomResizedCropFlip"] = "RandomResizedCropFlip"
    """How training images are varied: None resizes and crops the centre; RandomResizedCropFlip crops at random and
    mirrors half of the images."""


class TaskSpec(Model):
    """What the model learns to do; the labels come from the training data."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.textClassification) || self.type == 'TextClassification'",
            "textClassification is only allowed when type is TextClassification",
            ".textClassification",
        ),
        Rule(
            "!has(self.imageClassification) || self.type == 'ImageClassification'",
            "imageClassification is only allowed when type is ImageClassification",
            ".imageClassification",
        ),
    )

    type: Literal["TextClassification", "ImageClassification"]
    """The task: TextClassification needs a transformers model, ImageClassification a timm model."""
    text_classification: TextClassificationSpec | None = None
    """Options of the task TextClassification, and of no other."""
    image_classification: ImageClassificationSpec | None = None
    """Options of the task ImageClassification, and of no other."""


class ColumnsSpec(Model):
    """Which columns of a table hold what."""

    text: Column | None = None
    """Column with the text, for TextClassification. Default: text."""
    image: Column | None = None
    """Column with the path of the image, relative to the table's folder, for ImageClassification from a table.
    Default: image."""
    label: Column | None = None
    """Column with the label. Default: label."""


class TrainSpec(Model):
    """The data that the model learns from."""

    source: Source
    """A file (.csv, .jsonl, .parquet) or a folder with one sub-folder of images per label: pvc://CLAIM/PATH or
    file:///PATH."""
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

    source: Source | None = None
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
