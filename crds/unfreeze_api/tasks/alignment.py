"""One space for pictures, texts and sound: encoders of each, with a small head on them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unfreeze_api.grammar.model import Model, Since
from unfreeze_api.tasks.base import AUDIO, IMAGE, TEXT, Metric, TaskType


class AlignmentSpec(Model):
    """Options of alignment."""

    width: int = Field(default=256, ge=2, le=4096)
    """How many numbers a vector of the common space has."""
    projection: Literal["Linear", "MLP"] = "Linear"
    """What stands on each encoder. Linear: one layer. MLP: two, the first twice as wide as the second, with GELU
    between them."""
    dropout: float = Field(default=0, ge=0, lt=1)
    """Share of an encoder's outputs that each training step leaves out at random."""
    temperature: float | None = Field(default=None, ge=0.01, le=10)
    """What cosines are divided by before they are compared. It is learned, from this value on, and stays at 0.01 at least.
    Default: 0.07."""
    class_names: Annotated[bool | None, Since(2)] = None
    """Whether what encoders of pictures were pretrained to tell helps: where their folder has a classifier and the names of its
    classes, heads read, beside what an encoder gives, the mean of these names' vectors by the text encoders, weighted by the
    classes' probabilities (ConSE, Norouzi et al. 2014, arXiv 1312.5650). Linear heads begin there. Default: false."""
    max_length: int = Field(default=64, ge=1, le=131072)
    """Tokens kept of each text; longer texts are cut."""
    image_size: int | None = Field(default=None, ge=8, le=4096)
    """Height and width in pixels that images are resized to. Default: what the encoder was pretrained with."""
    max_seconds: Annotated[float | None, Since(2)] = Field(default=None, gt=0, le=600)
    """Seconds kept of each clip; longer clips are cut. Default: as of AudioClassification."""


COLUMNS = {"Image": IMAGE, "Text": TEXT, "Audio": AUDIO}
"""Column of each modality that a tower reads."""

ALIGNMENT = (
    *(Metric(name) for name in ("recallAt1", "recallAt5")),
    *(Metric(f"{way}RecallAt{best}") for way in ("forward", "backward") for best in (1, 5)),
    Metric("loss", "Lower"),
)
"""Metrics of what belongs together across modalities. Forward: an earlier tower's samples look for those of a later one. Where
three agree there are the first and the loss of them, and recall from each to each other one."""

TASK = TaskType(
    "Alignment",
    "needs a model of timm or transformers for each of model.towers",
    AlignmentSpec,
    library="transformers",
    or_library="timm",
    reads=(*COLUMNS.values(),),
    metrics=ALIGNMENT,
    pipeline="feature-extraction",
    targets="Pairings",
    one_answer=False,
    towers=True,
)
