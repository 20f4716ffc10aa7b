"""One label for each audio file."""

from __future__ import annotations

from pydantic import Field

from unfreeze_api.grammar.model import Model
from unfreeze_api.tasks.base import AUDIO, CLASSIFICATION, LABEL, TaskType


class AudioClassificationSpec(Model):
    """Options of audio classification."""

    max_seconds: float | None = Field(default=None, gt=0, le=600)
    """Seconds kept of each file, from its beginning; longer ones are cut. Whisper's encoder, which pads every clip to one
    length, is made so short for good, in whole seconds. Default: what the model takes, 30 where nothing limits it."""


TASK = TaskType(
    "AudioClassification",
    "needs a transformers model",
    AudioClassificationSpec,
    library="transformers",
    reads=(AUDIO, LABEL),
    metrics=CLASSIFICATION,
    pipeline="audio-classification",
)
