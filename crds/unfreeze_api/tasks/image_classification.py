"""Labels for each image: one, or any number."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unfreeze_api.tasks.base import CLASSIFICATION, IMAGE, LABEL, MULTI_LABEL, TaskType
from unfreeze_api.tasks.labels import LabelOptions


class ImageClassificationSpec(LabelOptions):
    """Options of image classification."""

    image_size: int | None = Field(default=None, ge=8, le=4096)
    """Height and width in pixels that images are resized to. Without it: the size that the model was pretrained
    with."""
    augmentation: Literal["None", "RandomResizedCropFlip"] = "RandomResizedCropFlip"
    """How training images are varied: None resizes and crops the centre; RandomResizedCropFlip crops at random and
    mirrors half of the images."""


TASK = TaskType(
    "ImageClassification",
    "needs a timm or transformers model",
    ImageClassificationSpec,
    library="timm",
    or_library="transformers",
    reads=(IMAGE, LABEL),
    metrics=CLASSIFICATION,
    multi_label=MULTI_LABEL,
    pipeline="image-classification",
)
