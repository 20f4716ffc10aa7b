"""Texts of pictures or sound: a frozen encoder, a projector, and a language model that goes on from what the projector gives."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.model import Model, Rule
from unfreeze_api.tasks.base import AUDIO, IMAGE, TEXT, TaskType
from unfreeze_api.tasks.causal_lm import LANGUAGE, PROMPT


class CaptioningSpec(Model):
    """Options of captioning."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.prompt) || self.annotation == 'Captions'",
            "with annotation Answers each row has its own: remove prompt, or set annotation to Captions",
            ".prompt",
        ),
    )

    annotation: Literal["Captions", "Answers"] = "Captions"
    """What a row of a table is. Captions: a picture or clip, and text. Answers: prompt too, which asks, and is not learned; text is the
    answer."""
    prompt: str | None = Field(default=None, min_length=1, max_length=1024)
    """The same text before each caption, which is not learned. Default: none."""
    max_length: int = Field(default=64, ge=2, le=131072)
    """Tokens kept of prompt and text together; longer texts are cut at their end."""
    features: Literal["Patches", "Pooled"] = "Patches"
    """What is read of an encoder. Patches: a vector of each place of a picture or moment of a clip. Pooled: one of all of it."""
    prefix_length: int | None = Field(default=None, ge=1, le=1024)
    """How many embeddings stand before the text; of more patches neighbours are averaged. Default: of Patches as many as there are,
    at most 64; of Pooled 8."""
    projection: Literal["Linear", "MLP"] = "MLP"
    """The projector: one layer, or two with GELU between them."""
    dropout: float = Field(default=0, ge=0, lt=1)
    """Share of an encoder's outputs that each training step leaves out."""
    image_size: int | None = Field(default=None, ge=8, le=4096)
    """Height and width in pixels that images are resized to. Default: the encoder's own."""
    max_seconds: float | None = Field(default=None, gt=0, le=600)
    """Seconds kept of each clip. Default: as of AudioClassification."""


TASK = TaskType(
    "Captioning",
    "needs an encoder and a transformers model that gives the next token in model.towers",
    CaptioningSpec,
    library="transformers",
    or_library="timm",
    reads=(IMAGE, AUDIO, TEXT, PROMPT),
    metrics=LANGUAGE,
    pipeline="image-to-text",
    one_answer=False,
    targets="Descriptions",
    towers=True,
    writes=True,
)
