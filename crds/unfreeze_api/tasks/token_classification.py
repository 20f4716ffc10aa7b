"""One tag for each word of a text."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unfreeze_api.grammar.columns import Column
from unfreeze_api.grammar.model import Model
from unfreeze_api.tasks.base import TEXT, Metric, TaskType


class TokenClassificationSpec(Model):
    """Options of token classification."""

    max_length: int = Field(default=128, ge=1, le=131072)
    """Tokens kept of each text; words beyond them are not learned from, and count as O where the model is measured."""
    annotation: Literal["Tags", "Spans"] = "Tags"
    """How a table says what is what. Tags: the columns tokens and tags, a list of words and one of as many tags. Spans: the
    columns text and spans, a text and a list of {start, end, label}, in characters from 0, end beyond the last."""


TOKENS = Column("tokens", "with the list of words")
TAGS = Column("tags", "with the list of tags, one for each word")
SPANS = Column("spans", "with the list of spans of the text, each {start, end, label}")

TAGGING = (
    *(Metric(name) for name in ("spanF1", "spanPrecision", "spanRecall", "tokenAccuracy")),
    Metric("loss", "Lower"),
)
"""Metrics of tasks with one tag for each word."""

TASK = TaskType(
    "TokenClassification",
    "needs a transformers model with a fast tokenizer",
    TokenClassificationSpec,
    library="transformers",
    reads=(TOKENS, TAGS, TEXT, SPANS),
    metrics=TAGGING,
    pipeline="token-classification",
    one_answer=False,
    targets="Tags",
)
