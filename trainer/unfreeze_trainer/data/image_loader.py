"""The way from a picture's file to a tensor: decoded in threads, a few batches ahead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unfreeze_trainer.data.file_loader import FileLoader
from unfreeze_trainer.data.images import PICTURES
from unfreeze_trainer.data.pictures import decode, decode_plainly
from unfreeze_trainer.models.image_input import ImageInput

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageLoader(FileLoader["Image", Tensor, Tensor]):
    """Makes batches of images, float32 of shape (samples, channels, height, width).

    Parameters
    ----------
    sees
        What the model sees of a picture.
    augment
        Whether training images are cropped at random and mirrored; else all are resized and cropped in the centre.
    as_shown
        Whether pictures are decoded as a viewer shows them; else by Pillow's conversion alone.
    """

    kind = PICTURES

    def __init__(self, sees: ImageInput, *, augment: bool, as_shown: bool = True) -> None:
        self._sees = sees
        self._decode = decode if as_shown else decode_plainly
        self._augment = augment

    def decode(self, content: str | bytes) -> Image:
        """Return a picture in the model's colours; PictureError if it cannot be read."""
        return self._decode(content, self._sees.mode)

    def prepare(self, opened: Image, index: int, epoch_seed: int | None) -> Tensor:
        """Return a picture as the model reads it, float32 of shape (channels, height, width)."""
        if epoch_seed is None or not self._augment:
            return self._sees.whole(opened)
        return self._vary(opened, np.random.default_rng([epoch_seed, index]))

    def blank(self) -> Tensor:
        """Return what the model reads of a picture without anything on it."""
        return self._sees.blank

    def gather(self, prepared: Sequence[Tensor]) -> Tensor:
        """Return the batch of some pictures."""
        return torch.stack(list(prepared))

    def _vary(self, image: Image, rng: np.random.Generator) -> Tensor:
        from PIL.Image import Transpose

        box = random_box(image.width, image.height, rng)
        image = image.resize((self._sees.width, self._sees.height), self._sees.resample, box=box)
        if rng.random() < 0.5:  # noqa: PLR2004 - half of the images
            image = image.transpose(Transpose.FLIP_LEFT_RIGHT)
        return self._sees.sized(image)


def random_box(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of a random part of an image, in pixels.

    8 to 100 % of the area with sides of a ratio between 3:4 and 4:3 (Szegedy et al. 2014, arXiv 1409.4842); after ten
    misses the largest such part in the centre.
    """
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, max(1, height * 4 // 3)), min(height, max(1, width * 4 // 3))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
