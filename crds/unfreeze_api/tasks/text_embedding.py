"""Vectors of texts: those that belong together lie close together."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.columns import Column
from unfreeze_api.grammar.model import Model, Rule
from unfreeze_api.tasks.base import LABEL, Metric, TaskType


class TextEmbeddingSpec(Model):
    """Options of text embedding."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.loss) || self.annotation == 'Scores'",
            "loss is only allowed when annotation is Scores: pairs and labels are learned by contrast",
            ".loss",
        ),
        Rule(
            "!has(self.temperature) || self.annotation != 'Scores' || (has(self.loss) && self.loss == 'CoSENT')",
            "temperature divides the similarities of a contrast, and with annotation Scores the loss CosineSimilarity has"
            " none: set loss to CoSENT, or remove temperature",
            ".temperature",
        ),
    )

    max_length: int = Field(default=128, ge=1, le=131072)
    """Tokens kept of each text; longer texts are cut."""
    annotation: Literal["Pairs", "Scores", "Labels"] = "Pairs"
    """How a table says which texts belong together. Pairs: the columns anchor and positive, and negative where
    columns.negative names it. Scores: anchor, positive and score, how similar both are. Labels: anchor and label, texts
    of one label belong together."""
    pooling: Literal["Auto", "Mean", "CLS", "LastToken", "Max"] | None = None
    """How the vectors of a text's tokens become one. Auto: the base's own pooling, from its 1_Pooling; Mean where it has
    none. Mean, Max: over all tokens. CLS, LastToken: one of them. Default: Auto."""
    temperature: float | None = Field(default=None, gt=0, le=10)
    """What cosines are divided by before they are compared: the smaller, the more the hardest texts count
    (sentence-transformers' 1 / scale). Default: 0.05."""
    loss: Literal["CosineSimilarity", "CoSENT"] | None = None
    """What is learned of scores. CosineSimilarity: the squared distance of the cosine from the score, which lies between
    -1 and 1. CoSENT: that pairs with a higher score have a higher cosine, whatever the scores' scale. Default:
    CosineSimilarity."""


ANCHOR = Column("anchor", "with the text that is compared")
POSITIVE = Column("positive", "with the text that belongs to it")
NEGATIVE = Column("negative", "with a text that does not belong to it", optional=True)
SCORE = Column("score", "with the similarity of anchor and positive")

RETRIEVAL = (*(Metric(name) for name in ("ndcgAt10", "mrrAt10", "recallAt1", "recallAt10")), Metric("loss", "Lower"))
"""Metrics of texts that belong together or not."""
SIMILARITY = (Metric("spearman"), Metric("pearson"), Metric("loss", "Lower"))
"""Metrics of pairs with a score."""

TASK = TaskType(
    "TextEmbedding",
    "needs a transformers model",
    TextEmbeddingSpec,
    library="transformers",
    reads=(ANCHOR, POSITIVE, NEGATIVE, SCORE, LABEL),
    metrics=RETRIEVAL,
    of_scores=SIMILARITY,
    pipeline="sentence-similarity",
    one_answer=False,
    targets="Relations",
    no_head="gives the base's own vectors and has no head",
)
