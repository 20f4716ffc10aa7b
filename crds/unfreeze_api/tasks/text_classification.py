"""Labels for each text: one, or any number."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unfreeze_api.grammar.model import Since
from unfreeze_api.tasks.base import CLASSIFICATION, LABEL, MULTI_LABEL, TEXT, TEXT_PAIR, TaskType
from unfreeze_api.tasks.labels import LabelOptions


class TextClassificationSpec(LabelOptions):
    """Options of text classification."""

    max_length: int = Field(default=128, ge=1, le=131072)
    """Tokens kept of each text; longer texts are cut."""
    pooling: Annotated[Literal["Auto", "Mean", "CLS", "LastToken", "Max", "Attention"] | None, Since(2)] = None
    """What the head reads of the model's output. Auto: what the base was trained to give: a sentence encoder's own
    pooling, from its 1_Pooling; elsewhere what the architecture's classifier reads, often the first token. Mean, Max:
    over all tokens. CLS, LastToken: one of them. Attention: a mean whose weights are learned. Default: Auto."""


TASK = TaskType(
    "TextClassification",
    "needs a transformers model",
    TextClassificationSpec,
    library="transformers",
    reads=(TEXT, TEXT_PAIR, LABEL),
    metrics=CLASSIFICATION,
    multi_label=MULTI_LABEL,
    pipeline="text-classification",
    classical="Texts",
)
