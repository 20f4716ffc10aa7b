"""Labels for each audio file: one, or any number."""

from __future__ import annotations

from pydantic import Field

from unfreeze_api.tasks.base import AUDIO, CLASSIFICATION, LABEL, MULTI_LABEL, TaskType
from unfreeze_api.tasks.labels import LabelOptions


class AudioClassificationSpec(LabelOptions):
    """Options of audio classification."""

    max_seconds: float | None = Field(default=None, gt=0, le=600)
    """Seconds kept of each file, from its beginning; longer ones are cut. Whisper's encoder, which pads every clip to one
    length, is made so short for good, in whole seconds. Default: what the model takes, 30 where nothing limits it; for Whisper's
    encoder as many whole seconds as the longest training clip has."""


TASK = TaskType(
    "AudioClassification",
    "needs a transformers model",
    AudioClassificationSpec,
    library="transformers",
    reads=(AUDIO, LABEL),
    metrics=CLASSIFICATION,
    multi_label=MULTI_LABEL,
    pipeline="audio-classification",
)
