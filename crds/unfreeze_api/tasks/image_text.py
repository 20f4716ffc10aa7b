"""Models that see and read, such as CLIP: pictures and the texts that belong to them lie close together."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.columns import Column
from unfreeze_api.grammar.model import Model, Rule
from unfreeze_api.tasks.base import IMAGE, TEXT, Metric, TaskType

PROMPT = "a photo of a {}."
"""What a class is called where the job says nothing, as in CLIP's paper (Radford et al. 2021, arXiv 2103.00020, section 3.1.4)."""
Prompt = Annotated[str, Field(min_length=2, max_length=256)]


class ImageTextSpec(Model):
    """Options of image and text."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.prompts) || self.prompts.all(prompt, prompt.contains('{}'))",
            "every prompt needs {}, where the name of a class goes: write it there, as in 'a photo of a {}.'",
            ".prompts",
        ),
    )

    max_length: int | None = Field(default=None, ge=3, le=131072)
    """Tokens kept of each text; longer texts are cut. Default: as many as the model takes, of CLIP 77."""
    image_tower: Literal["Trained", "Frozen"] = "Trained"
    """What becomes of the part that sees. Trained: what the strategy says. Frozen: it stays as it is in all strategies, its
    projection too, and the texts learn to fit it (LiT, Zhai et al. 2022, arXiv 2111.07991)."""
    prompts: Annotated[
        list[Prompt] | None, Field(min_length=1, max_length=100, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = None
    """Texts that name a class, of which {} is the name: by them zeroShotAccuracy tells the classes of columns.className. Of
    several the mean of their vectors counts. Default: one, 'a photo of a {}.', as in CLIP's paper."""


CLASS_NAME = Column("className", "with the name of what the picture shows, to tell by prompts", optional=True)

RECALLS = tuple(f"{way}RecallAt{best}" for way in ("imageToText", "textToImage") for best in (1, 5, 10))
IMAGE_TEXT = (*(Metric(name) for name in RECALLS), Metric("zeroShotAccuracy"), Metric("loss", "Lower"))
"""Metrics of pictures and texts that look for each other."""

TASK = TaskType(
    "ImageText",
    "needs a transformers model that sees and reads, CLIP or SigLIP",
    ImageTextSpec,
    library="transformers",
    reads=(IMAGE, TEXT, CLASS_NAME),
    metrics=IMAGE_TEXT,
    pipeline="zero-shot-image-classification",
    targets="Captions",
    one_answer=False,
)
