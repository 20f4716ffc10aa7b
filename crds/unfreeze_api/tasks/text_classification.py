"""One label for each text."""

from __future__ import annotations

from pydantic import Field

from unfreeze_api.grammar.model import Model
from unfreeze_api.tasks.base import CLASSIFICATION, LABEL, TEXT, TaskType


class TextClassificationSpec(Model):
    """Options of text classification."""

    max_length: int = Field(default=128, ge=1, le=131072)
    """Tokens kept of each text; longer texts are cut."""


TASK = TaskType(
    "TextClassification",
    "needs a transformers model",
    TextClassificationSpec,
    library="transformers",
    reads=(TEXT, LABEL),
    metrics=CLASSIFICATION,
    pipeline="text-classification",
)
