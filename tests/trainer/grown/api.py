"""One of several levels for each text."""

from __future__ import annotations

from pydantic import Field

from unfreeze_api.grammar.model import Model
from unfreeze_api.tasks.base import LABEL, TEXT, Metric, TaskType


class OrdinalRegressionSpec(Model):
    """Options of ordinal regression."""

    max_length: int = Field(default=16, ge=1, le=131072)
    """Tokens kept of each text; longer texts are cut."""


TASK = TaskType(
    "OrdinalRegression",
    "grades texts by a transformers model",
    OrdinalRegressionSpec,
    library="transformers",
    reads=(TEXT, LABEL),
    metrics=(Metric("meanError", "Lower"), Metric("loss", "Lower")),
    pipeline="text-classification",
)
