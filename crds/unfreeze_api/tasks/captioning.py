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
            "with annotation Answers each row has a prompt of its own: remove prompt, or set annotation to Captions",
            ".prompt",
        ),
    )

    annotation: Literal["Captions", "Answers"] = "Captions"
    """What a row of a table is. Captions: a picture or clip, and the column text, which is said of it. Answers: besides the column
    prompt, which asks something of it; text is the answer. Prompts are read, and not learned."""
    prompt: str | None = Field(default=None, min_length=1, max_length=1024)
    """The same text before each caption, which is read and not learned. Default: none."""
    max_length: int = Field(default=64, ge=2, le=131072)
    """Tokens kept of prompt and text of each row, with the one that ends the text; longer texts are cut at their end."""
    features: Literal["Patches", "Pooled"] = "Patches"
    """What the projector reads of an encoder. Patches: the vector of each place of a picture or moment of a clip, as LLaVA does
    (Liu et al. 2023, arXiv 2304.08485). Pooled: the one vector of all of it, as ClipCap does (Mokady et al. 2021, arXiv 2111.09734)."""
    prefix_length: int | None = Field(default=None, ge=1, le=1024)
    """How many embeddings stand before the text. Of Patches neighbours in reading order are averaged to so many, if there are more.
    Default: of Patches as many as there are, at most 64; of Pooled 8."""
    projection: Literal["Linear", "MLP"] = "MLP"
    """The projector. Linear: one layer. MLP: two, with GELU between them."""
    dropout: float = Field(default=0, ge=0, lt=1)
    """Share of an encoder's outputs that each training step leaves out at random."""
    image_size: int | None = Field(default=None, ge=8, le=4096)
    """Height and width in pixels that images are resized to. Default: what the encoder was pretrained with."""
    max_seconds: float | None = Field(default=None, gt=0, le=600)
    """Seconds kept of each clip; longer clips are cut. Default: as of AudioClassification."""


TASK = TaskType(
    "Captioning",
    "needs an encoder of pictures or sound and a transformers model that gives the next token, the two of model.towers",
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
