"""The next token of a text: decoders that go on with texts, complete prompts or answer in dialogues."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.columns import Column
from unfreeze_api.grammar.model import Model, Rule
from unfreeze_api.tasks.base import TEXT, Metric, TaskType


class CausalLMSpec(Model):
    """Options of causal language modelling."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.lossOn) || self.annotation != 'Text'",
            "lossOn tells completions from what comes before them, and with annotation Text there are none: remove it",
            ".lossOn",
        ),
    )

    max_length: int = Field(default=1024, ge=2, le=131072)
    """Tokens kept of each sample, special ones included; longer ones are cut at their end."""
    annotation: Literal["Messages", "Completions", "Text"] = "Messages"
    """What a row of a table is. Messages: the column messages, a dialogue, a list of {role, content} which the model's chat
    template turns into text. Completions: the columns prompt and completion. Text: the column text."""
    loss_on: Literal["Completions", "AllTokens"] | None = None
    """Which tokens are learned. Completions: what the assistant says, or the completion, with the token that ends it. AllTokens:
    what comes before, too. Default: Completions."""

    packing: bool = False
    """Whether short samples of a batch stand in a row one after the other, each apart from the others, in place of padding. The
    samples of a step stay the same, and so does what is learned, but for rounding."""


MESSAGES = Column("messages", "with the dialogue, a list of {role, content}")
PROMPT = Column("prompt", "with the text that is completed")
COMPLETION = Column("completion", "with what completes the prompt")

LANGUAGE = (Metric("loss", "Lower"), Metric("perplexity", "Lower"), Metric("tokenAccuracy"))
"""Metrics of tasks that give the next token."""
NO_NEW_HEAD = "can go on with the base's own output layer but not have a new head"
"""Why strategies that train a new head alone are not for them."""

TASK = TaskType(
    "CausalLM",
    "needs a transformers model that gives the next token",
    CausalLMSpec,
    library="transformers",
    reads=(MESSAGES, PROMPT, COMPLETION, TEXT),
    metrics=LANGUAGE,
    pipeline="text-generation",
    one_answer=False,
    targets="NextTokens",
    writes=True,
    no_head=NO_NEW_HEAD,
)
