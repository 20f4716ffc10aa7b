"""Images: folders with one sub-folder per label, tables of paths, and the way from a file to a tensor."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unfreeze_api.resolve import Dataset
from unfreeze_trainer.data.labels import encode_labels
from unfreeze_trainer.data.samples import Source
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.errors import JobError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
CHECKED_IMAGES = 10_000
"""Files whose header is read before training; of more, so many at even distances."""
AHEAD = 2
"""Batches that are decoded while the model works on another."""


def read_images(dataset: Dataset, where: str) -> Source:
    """Read a folder of images, or a table of their paths relative to it; JobError InvalidData for broken ones."""
    import pyarrow as pa

    root = Path(dataset.path)
    if root.is_dir():
        paths, labels = _list_folder(root, where)
        codes, names = encode_labels(pa.chunked_array([pa.array(labels).dictionary_encode()]), "label", where)
        column = None
    else:
        table = read_table(dataset.path, [dataset.columns.image, dataset.columns.label], where)
        if not table.num_rows:
            raise JobError("InvalidData", f"{where}: no samples; the file has no rows")
        paths = [str(root.parent / (name or "")) for name in table[dataset.columns.image].to_pylist()]
        codes, names = encode_labels(table[dataset.columns.label], dataset.columns.label, where)
        column = dataset.columns.image
        for row, path in enumerate(paths):
            if not os.path.isfile(path):  # noqa: PTH113 - of millions of files
                raise JobError(
                    "InvalidData", f"{where}: {_row(row, column)}no such image: {path}; paths are relative to the table"
                )
    _check_headers(paths, where, column)
    return Source(dataset, where, pa.chunked_array([pa.array(paths)]), codes, names)


def _list_folder(root: Path, where: str) -> tuple[list[str], list[str]]:
    paths, labels = [], []
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    for label in folders:
        found = sorted(
            os.path.join(parent, name)  # noqa: PTH118 - of millions of files
            for parent, _, names in os.walk(root / label)
            for name in names
            if os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122
        )
        if not found:
            raise JobError(
                "InvalidData",
                f"{where}: no images in the label's folder {label}; they end in {', '.join(sorted(SUFFIXES))}. Add some,"
                " or remove the folder",
            )
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise JobError(
            "InvalidData", f"{where}: no images: {root} needs one sub-folder per label, with the label's images in it"
        )
    return paths, labels


def _row(row: int, column: str | None) -> str:
    return f"row {row + 1}, column {column!r}: " if column else ""  # in a folder the path says it all


def _check_headers(paths: Sequence[str], where: str, column: str | None) -> None:
    from PIL import Image

    def broken(row: int) -> str:
        try:
            with Image.open(paths[row]):
                return ""
        except OSError as error:
            return f"{where}: {_row(row, column)}not a readable image: {error}; replace or remove it"

    chosen = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), CHECKED_IMAGES)).astype(int)).tolist()
    with ThreadPoolExecutor(_threads()) as pool:
        for message in pool.map(broken, chosen, chunksize=64):
            if message:
                raise JobError("InvalidData", message)


def _threads() -> int:
    return min(8, len(os.sched_getaffinity(0)))


class ImageLoader:
    """Decodes images in threads, a few batches ahead.

    Parameters
    ----------
    data_config
        As timm describes a model's input: input_size, interpolation, mean, std, crop_pct, crop_mode.
    augment
        Whether training images are cropped at random and mirrored; else all are resized and cropped in the centre.
    """

    def __init__(self, data_config: dict[str, Any], *, augment: bool) -> None:
        from timm.data import create_transform

        self._channels, self._height, self._width = data_config["input_size"]
        self._mode = {1: "L", 3: "RGB"}[self._channels]
        self._augment = augment
        self._resample = data_config["interpolation"]
        self._mean = torch.tensor(data_config["mean"]).view(-1, 1, 1)
        self._std = torch.tensor(data_config["std"]).view(-1, 1, 1)
        self._centre = create_transform(**data_config, is_training=False)

    def batches(
        self, source: Source, batches: Iterable[tuple[Sequence[int], np.ndarray]], epoch_seed: int | None
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
        """
        waiting: deque[tuple[Sequence[int], list[Future[Tensor]]]] = deque()
        pool = ThreadPoolExecutor(_threads(), thread_name_prefix="images")
        try:
            for indices, rows in batches:
                futures = [
                    pool.submit(self._load, source, int(row), int(index), epoch_seed)
                    for index, row in zip(indices, rows, strict=True)
                ]
                waiting.append((indices, futures))
                if len(waiting) > AHEAD:
                    yield self._collect(*waiting.popleft())
            while waiting:
                yield self._collect(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _collect(self, indices: Sequence[int], futures: list[Future[Tensor]]) -> tuple[Sequence[int], Tensor]:
        if not futures:
            return indices, torch.zeros(1, self._channels, self._height, self._width)
        return indices, torch.stack([future.result() for future in futures])

    def _load(self, source: Source, row: int, index: int, epoch_seed: int | None) -> Tensor:
        from PIL import Image

        path = source.inputs[row].as_py()
        try:
            with Image.open(path) as file:
                image = file.convert(self._mode)
        except OSError as error:
            raise JobError(
                "InvalidData", f"{source.where}: {path} cannot be decoded: {error}; replace or remove it"
            ) from error
        if epoch_seed is None or not self._augment:
            return self._centre(image)
        return self._vary(image, np.random.default_rng([epoch_seed, index]))

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
