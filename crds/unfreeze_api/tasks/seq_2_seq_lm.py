"""A text from a text: encoder-decoders that translate, summarise or rewrite."""

from __future__ import annotations

from pydantic import Field

from unfreeze_api.grammar.columns import Column
from unfreeze_api.grammar.model import Model
from unfreeze_api.tasks.base import TaskType
from unfreeze_api.tasks.causal_lm import LANGUAGE, NO_NEW_HEAD


class Seq2SeqLMSpec(Model):
    """Options of sequence-to-sequence language modelling."""

    max_source_length: int = Field(default=512, ge=2, le=131072)
    """Tokens that the encoder reads of each source, special ones included; longer ones are cut at their end."""
    max_target_length: int = Field(default=128, ge=2, le=131072)
    """Tokens that are learned of each target, special ones included; longer ones are cut at their end."""


SOURCE = Column("source", "with the text that the model is given")
TARGET = Column("target", "with the text that it is to make of it")

TASK = TaskType(
    "Seq2SeqLM",
    "needs a transformers model of an encoder and a decoder",
    Seq2SeqLMSpec,
    library="transformers",
    reads=(SOURCE, TARGET),
    metrics=LANGUAGE,
    pipeline="text2text-generation",
    one_answer=False,
    targets="TargetTexts",
    writes=True,
    no_head=NO_NEW_HEAD,
)
