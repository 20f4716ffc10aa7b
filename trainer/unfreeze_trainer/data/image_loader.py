"""The way from a picture's file to a tensor: decoded in threads, a few batches ahead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unfreeze_trainer.data.augmentation import Variation
from unfreeze_trainer.data.file_loader import FileLoader
from unfreeze_trainer.data.images import PICTURES
from unfreeze_trainer.data.pictures import MAX_PIXELS, PictureError, decode, decode_plainly, turn
from unfreeze_trainer.models.image_input import ImageInput

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageLoader(FileLoader["Image", Tensor, Tensor]):
    """Makes batches of images, float32 of shape (samples, channels, height, width).

    Parameters
    ----------
    sees
        What the model sees of a picture.
    vary
        Makes of a training image, its index and the epoch's seed what the model reads; else all are as in an evaluation.
    as_shown
        Whether pictures are decoded as a viewer shows them; else by Pillow's conversion alone.
    """

    kind = PICTURES

    def __init__(self, sees: ImageInput, vary: Variation | None = None, *, as_shown: bool = True) -> None:
        self._sees = sees
        self._decode = decode if as_shown else decode_plainly
        self._vary = vary

    def decode(self, content: str | bytes) -> Image:
        """Return a picture in the model's colours; PictureError if it cannot be read."""
        picture = self._decode(content, self._sees.mode)
        short, long = sorted(picture.size)
        if long * self._sees.height * self._sees.width > MAX_PIXELS * short:
            raise PictureError(
                f"it is {picture.width} x {picture.height} pixels: with its shorter side as long as the model's, it would have more"
                f" than {MAX_PIXELS:,}; crop it"
            )
        return picture

    def prepare(self, opened: Image, index: int, epoch_seed: int | None) -> Tensor:
        """Return a picture as the model reads it, float32 of shape (channels, height, width)."""
        with turn(opened):
            if epoch_seed is None or self._vary is None:
                return self._sees.whole(opened)
            return self._vary(opened, index, epoch_seed)

    def blank(self) -> Tensor:
        """Return what the model reads of a picture without anything on it, float32 of shape (channels, height, width)."""
        return self._sees.blank

    def gather(self, prepared: Sequence[Tensor]) -> Tensor:
        """Return the batch of some pictures, float32 of shape (pictures, channels, height, width)."""
        return torch.stack(list(prepared))
