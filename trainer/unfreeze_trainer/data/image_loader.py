"""The way from a picture's file to a tensor: decoded in threads, a few batches ahead."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unfreeze_trainer.data.images import sample_name, threads
from unfreeze_trainer.data.pictures import Mode, PictureError, decode, decode_plainly
from unfreeze_trainer.data.samples import Source
from unfreeze_trainer.errors import JobError, one_line, quoted

if TYPE_CHECKING:
    from PIL.Image import Image

PREFETCH_BATCHES = 2
"""Batches that are decoded while the model works on another."""


READ_IMAGES = 100_000
READ_SECONDS = 5.0
"""Pictures that are read whole before training, and how long that may take: then those that were read stand for all."""


def spread(count: int) -> np.ndarray:
    """Return range(count) in an order whose every beginning lies evenly in it: by the golden ratio's multiples."""
    return np.argsort(np.arange(count) * ((math.sqrt(5) - 1) / 2) % 1, kind="stable")


class ImageLoader:
    """Decodes images in threads, a few batches ahead.

    Parameters
    ----------
    data_config
        As timm describes a model's input: input_size, interpolation, mean, std, crop_pct, crop_mode.
    augment
        Whether training images are cropped at random and mirrored; else all are resized and cropped in the centre.
    as_shown
        Whether pictures are decoded as a viewer shows them; else by Pillow's conversion alone.
    """

    def __init__(self, data_config: dict[str, Any], *, augment: bool, as_shown: bool = True) -> None:
        from timm.data import create_transform

        self._channels, self._height, self._width = data_config["input_size"]
        modes: dict[int, Mode] = {1: "L", 3: "RGB"}
        self._mode = modes[self._channels]
        self._decode = decode if as_shown else decode_plainly
        self._augment = augment
        self._resample = data_config["interpolation"]
        self._mean = torch.tensor(data_config["mean"]).view(-1, 1, 1)
        self._std = torch.tensor(data_config["std"]).view(-1, 1, 1)
        self._centre = create_transform(**data_config, is_training=False)

    def check(self, source: Source, rows: np.ndarray, seconds: float) -> tuple[int, list[JobError]]:
        """Read pictures for a while, in threads; return how many were read, and what those give that cannot be."""

        def tried(row: int) -> JobError | None:
            try:
                self._open(source, int(row))
            except JobError as error:
                return error
            return None

        broken: list[JobError] = []
        end, window = time.monotonic() + seconds, threads() * 8
        with ThreadPoolExecutor(threads()) as pool:
            for start in range(0, len(rows), window):
                if time.monotonic() >= end:
                    return start, broken
                broken += filter(None, pool.map(tried, rows[start : start + window]))
        return len(rows), broken

    def batches(
        self,
        source: Source,
        batches: Iterable[tuple[Sequence[int], np.ndarray]],
        epoch_seed: int | None,
        skipped: set[int] | None = None,
    ) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Yield each list of indices with its images, float32 of shape (samples, channels, height, width).

        Parameters
        ----------
        source
            Its inputs are paths.
        batches
            Pairs of sample indices, which the random augmentation depends on, and rows of the source.
        epoch_seed
            Seed of the augmentation; none without.
        skipped
            Takes the indices of those that cannot be read, which are grey then; without it the first one is raised.
        """
        waiting: deque[tuple[Sequence[int], list[Future[Tensor]]]] = deque()
        pool = ThreadPoolExecutor(threads(), thread_name_prefix="images")
        try:
            for indices, rows in batches:
                futures = [
                    pool.submit(self._load, source, int(row), int(index), epoch_seed, skipped)
                    for index, row in zip(indices, rows, strict=True)
                ]
                waiting.append((indices, futures))
                if len(waiting) > PREFETCH_BATCHES:
                    yield self._collect(*waiting.popleft())
            while waiting:
                yield self._collect(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _collect(self, indices: Sequence[int], futures: list[Future[Tensor]]) -> tuple[Sequence[int], Tensor]:
        if not futures:
            return indices, self._blank()[None]
        return indices, torch.stack([future.result() for future in futures])

    def _load(self, source: Source, row: int, index: int, epoch_seed: int | None, skipped: set[int] | None) -> Tensor:
        try:
            return self._prepare(source, row, index, epoch_seed)
        except JobError:
            if skipped is None:
                raise
            skipped.add(index)
            return self._blank()

    def _blank(self) -> Tensor:
        return torch.zeros(self._channels, self._height, self._width)

    def _prepare(self, source: Source, row: int, index: int, epoch_seed: int | None) -> Tensor:
        image = self._open(source, row)
        try:
            if epoch_seed is None or not self._augment:
                return self._centre(image)
            return self._vary(image, np.random.default_rng([epoch_seed, index]))
        except Exception as error:
            if isinstance(error, MemoryError):
                raise
            why = quoted(one_line(error))
            message = f"{sample_name(source, row)}: it cannot be prepared ({why}); replace or remove it"
            raise JobError("InvalidData", message) from error

    def _open(self, source: Source, row: int) -> Image:
        try:
            return self._decode(source.inputs[row].as_py(), self._mode)
        except PictureError as error:
            raise JobError("InvalidData", f"{sample_name(source, row)}: {error}") from error

    def _vary(self, image: Image, rng: np.random.Generator) -> Tensor:
        from PIL import Image
        from PIL.Image import Resampling, Transpose

        box = random_box(image.width, image.height, rng)
        resample = {"bilinear": Resampling.BILINEAR, "nearest": Resampling.NEAREST, "lanczos": Resampling.LANCZOS}
        image = image.resize((self._width, self._height), resample.get(self._resample, Resampling.BICUBIC), box=box)
        if rng.random() < 0.5:  # noqa: PLR2004 - half of the images
            image = image.transpose(Transpose.FLIP_LEFT_RIGHT)
        assert isinstance(image, Image.Image)
        pixels = np.array(image, dtype=np.float32).reshape(self._height, self._width, self._channels) / 255
        return (torch.from_numpy(pixels).permute(2, 0, 1) - self._mean) / self._std


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
