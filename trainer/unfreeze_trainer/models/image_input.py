"""What a model sees of a picture, whichever library it is of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

Mode = Literal["L", "RGB"]
MODES: dict[int, Mode] = {1: "L", 3: "RGB"}
"""Pillow's name of the colours of so many channels."""


@dataclass(frozen=True)
class ImageInput:
    """How pictures become what a model reads, float32 of shape (channels, height, width)."""

    mode: Mode
    """Pillow's name of its colours."""
    height: int
    width: int
    """Of what it reads, in pixels."""
    own_size: tuple[int, int]
    """Height and width that it was pretrained with."""
    resample: Resampling
    """How pictures are scaled."""
    fill: tuple[int, ...]
    """Colour that its pixels are centred on, 0 to 255 of each channel: what stands where a picture is moved away."""
    whole: Callable[[Image], Tensor]
    """What is read of a picture in an evaluation, by the library itself."""
    sized: Callable[[Image], Tensor]
    """What is read of a picture that has the model's height and width."""
    blank: Tensor
    """What stands in the place of a picture that there is none of."""
    processor: Any = None
    """transformers' image processor, which is kept beside the weights; None where config.json says it all, as timm's does."""
