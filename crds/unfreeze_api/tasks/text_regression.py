"""One or more numbers for each text, or for each pair of texts."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.model import Model, Rule
from unfreeze_api.tasks.base import REGRESSION, TEXT, TEXT_PAIR, VALUE, VALUES, TaskType


class TextRegressionSpec(Model):
    """Options of text regression."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.huberDelta) || (has(self.loss) && self.loss == 'Huber')",
            "huberDelta is only allowed when loss is Huber",
            ".huberDelta",
        ),
    )

    max_length: int = Field(default=128, ge=1, le=131072)
    """Tokens kept of each text, of a pair of both together; longer ones are cut."""
    pooling: Literal["Auto", "Mean", "CLS", "LastToken", "Max", "Attention"] | None = None
    """What the head reads of the model's output, as in textClassification.pooling. Default: Auto."""
    loss: Literal["MeanSquaredError", "Huber"] | None = None
    """What training lowers, on numbers with the mean 0 and the standard deviation 1 over the training split. Huber (1964)
    is half the square up to huberDelta and linear beyond: outliers count for less. Default: MeanSquaredError."""
    huber_delta: float | None = Field(default=None, gt=0, le=1000)
    """Error from which Huber's loss is linear, in standard deviations of the training split's numbers. Default: 1."""


TASK = TaskType(
    "TextRegression",
    "needs a transformers model",
    TextRegressionSpec,
    library="transformers",
    reads=(TEXT, TEXT_PAIR, VALUE, VALUES),
    metrics=REGRESSION,
    pipeline="text-classification",
    classical="Texts",
    targets="Numbers",
)
