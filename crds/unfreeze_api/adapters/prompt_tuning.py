"""Vectors before a text."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from unfreeze_api.adapters.base import AdapterKind
from unfreeze_api.grammar.model import Model, Rule


class PromptTuningSpec(Model):
    """Prompt tuning: vectors before the text's own embeddings (Lester et al. 2021, arXiv 2104.08691)."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.promptTuningInit == 'Text') == has(self.promptTuningInitText)",
            "promptTuningInit Text and promptTuningInitText come together",
            ".promptTuningInit",
        ),
    )

    num_virtual_tokens: int = Field(default=20, ge=1, le=1024)
    """How many vectors stand before the input."""
    prompt_tuning_init: Literal["SampleVocab", "Random", "Text"] = "SampleVocab"
    """What they start from: embeddings of tokens drawn at random, random numbers, or the embeddings of
    promptTuningInitText."""
    prompt_tuning_init_text: str | None = Field(default=None, min_length=1, max_length=1024)
    """Text whose tokens the vectors start from; repeated or cut to numVirtualTokens. Default: none."""


ADAPTER = AdapterKind(
    "PromptTuning",
    "puts vectors before a text",
    PromptTuningSpec,
    mergeable=False,
    before_input=True,
    all_blocks="belongs to no block that could be trained alone",
)
