"""How training pictures are varied: by the epoch's seed and the sample's index alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unfreeze_api.tasks.image_classification import ImageClassificationSpec
from unfreeze_trainer.data.policies import open_policy

if TYPE_CHECKING:
    from PIL.Image import Image

    from unfreeze_trainer.models.image_input import ImageInput

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels."""
_ATTEMPTS = 10


class Variation:
    """What a picture is in an epoch.

    Parameters
    ----------
    options
        Of the task.
    sees
        What the model sees of a picture.
    """

    def __init__(self, options: ImageClassificationSpec, sees: ImageInput) -> None:
        self._sees, self._crops = sees, options.augmentation == "RandomResizedCropFlip"
        self._policy = open_policy(options, sees)
        self._erased = options.random_erasing.probability if options.random_erasing else 0.0

    def __call__(self, image: Image, index: int, epoch_seed: int) -> Tensor:
        """Return what the model reads of a sample, float32 of shape (channels, height, width)."""
        rng = np.random.default_rng([epoch_seed, index])
        if self._crops:
            image = self._cropped(image, rng)
        if self._policy:
            image = self._policy(image, int(rng.integers(1 << 32)))
        pixels = self._sees.sized(image) if self._crops else self._sees.whole(image)
        return erased(pixels, rng) if self._erased and rng.random() < self._erased else pixels

    def _cropped(self, image: Image, rng: np.random.Generator) -> Image:
        from PIL.Image import Transpose

        box = random_box(image.width, image.height, rng)
        image = image.resize((self._sees.width, self._sees.height), self._sees.resample, box=box)
        if rng.random() < 0.5:  # noqa: PLR2004 - half of the images
            image = image.transpose(Transpose.FLIP_LEFT_RIGHT)
        return image


def random_box(width: int, height: int, rng: np.random.Generator) -> Box:
    """Return left, top, right, bottom of a random part of an image, in pixels.

    8 to 100 % of the area with sides of a ratio between 3:4 and 4:3 (Szegedy et al. 2014, arXiv 1409.4842); after ten
    misses the largest such part in the centre.
    """
    for _ in range(_ATTEMPTS):
        area = width * height * rng.uniform(0.08, 1)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, max(1, height * 4 // 3)), min(height, max(1, width * 4 // 3))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def erased(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Return pixels with a rectangle of normal noise: 2 % to a third of the area, sides of a ratio of .3 to 1/.3.

    Random erasing (Zhong et al. 2017, arXiv 1708.04896), with timm's bounds; after ten misses nothing is erased.
    """
    channels, height, width = pixels.shape
    for _ in range(_ATTEMPTS):
        area = height * width * rng.uniform(0.02, 1 / 3)
        ratio = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < height and w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            noise = torch.from_numpy(rng.standard_normal((channels, h, w), dtype=np.float32))
            pixels = pixels.clone()
            pixels[:, top : top + h, left : left + w] = noise
            return pixels
    return pixels
