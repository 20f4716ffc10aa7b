"""Images: folders with one sub-folder per label, tables of paths, and the way from a file to a tensor."""

from __future__ import annotations

import logging
import math
import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unfreeze_api.resolve import Dataset
from unfreeze_trainer.data.labels import encode_labels
from unfreeze_trainer.data.pictures import FORMATS, Mode, PictureError, decode, decode_plainly, open_picture
from unfreeze_trainer.data.samples import Source
from unfreeze_trainer.data.tables import read_table, some_rows
from unfreeze_trainer.errors import JobError

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL.Image import Image

log = logging.getLogger(__name__)

CHECKED_IMAGES = 10_000
"""Files whose header is read before training; of more, so many at even distances."""
AHEAD = 2
"""Batches that are decoded while the model works on another."""
_SPLIT = re.compile(
    r"(train|training|val|valid|validation|dev|test|testing|eval|evaluation)([-_ ]?(set|data|images))?", re.IGNORECASE
)
"""Names of folders that hold a split, and not the pictures of a label."""


def read_images(dataset: Dataset, where: str) -> Source:
    """Read a folder of images, or a table of paths relative to it or of the files' content; JobError for broken ones."""
    import pyarrow as pa

    root = Path(dataset.path)
    if root.is_dir():
        paths, labels = _list_folder(root, where)
        codes, names = encode_labels(pa.chunked_array([pa.array(labels).dictionary_encode()]), "label", where)
        inputs, column = pa.chunked_array([pa.array(paths)]), None
    else:
        column = dataset.columns.image
        table = read_table(dataset.path, [column, dataset.columns.label], where)
        if not table.num_rows:
            raise JobError("InvalidData", f"{where}: no samples; the file has no rows")
        inputs = _pictures_of(table[column], root.parent, column, where)
        codes, names = encode_labels(table[dataset.columns.label], dataset.columns.label, where)
    _check_headers(inputs, where, column)
    return Source(dataset, where, inputs, codes, names)


def _pictures_of(cells: pa.ChunkedArray, folder: Path, column: str, where: str) -> pa.ChunkedArray:
    """Return the paths or the contents in a table's column: text, bytes, or the hub's struct of bytes and path."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    kind = cells.type
    if pa.types.is_struct(kind) and {field.name for field in kind} >= {"bytes"}:
        content = pc.struct_field(cells, "bytes")
        if content.null_count == 0:
            return _not_missing(content, column, where)
        if "path" not in {field.name for field in kind} or content.null_count < len(cells):
            return _not_missing(content, column, where)
        cells = pc.struct_field(cells, "path")
        kind = cells.type
    if _is_binary(kind):
        return _not_missing(cells, column, where)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise JobError(
            "InvalidData",
            f"{where}: column {column!r} holds {kind}, and neither paths of pictures nor their bytes: name another column"
            " in columns.image",
        )
    paths = [str(folder / name) for name in _not_missing(cells, column, where).to_pylist()]
    for row, path in enumerate(paths):
        if not os.path.isfile(path):  # noqa: PTH113 - of millions of files
            raise JobError(
                "InvalidData", f"{where}: {_row(row, column)}no such image: {path}; paths are relative to the table"
            )
    return pa.chunked_array([pa.array(paths)])


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in checks)


def _not_missing(cells: pa.ChunkedArray, column: str, where: str) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    missing = np.flatnonzero(pc.equal(pc.fill_null(pc.binary_length(cells), 0), 0).to_numpy(zero_copy_only=False))
    if missing.size:
        it = "it" if missing.size == 1 else "them"
        raise JobError(
            "InvalidData", f"{where}: no picture in column {column!r} of {some_rows(missing.tolist())}; remove {it}"
        )
    return cells


def _list_folder(root: Path, where: str) -> tuple[list[str], list[str]]:
    paths, labels, left_out = [], [], Counter[str]()
    entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    folders = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    left_out["hidden"] = sum(entry.is_dir() and entry.name.startswith(".") for entry in entries)
    _refuse_splits(root, folders, where)
    for label in folders:
        found = []
        for parent, inner, names in os.walk(root / label):
            left_out["hidden"] += sum(name.startswith(".") for name in inner)
            inner[:] = [name for name in inner if not name.startswith(".")]
            for name in names:
                suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - of millions of files
                if suffix in FORMATS and not name.startswith("."):
                    found.append(os.path.join(parent, name))  # noqa: PTH118
                else:
                    left_out[suffix or "no suffix"] += 1
        if not found:
            raise JobError(
                "InvalidData",
                f"{where}: no images in the label's folder {label}; they end in {', '.join(sorted(FORMATS))}. Add some,"
                " or remove the folder",
            )
        paths += sorted(found)
        labels += [label] * len(found)
    if not paths:
        raise JobError(
            "InvalidData", f"{where}: no images: {root} needs one sub-folder per label, with the label's images in it"
        )
    _tell_left_out(where, left_out, sum(not entry.is_dir() for entry in entries))
    return paths, labels


def _tell_left_out(where: str, left_out: Counter[str], beside: int) -> None:
    told = [f"{count} files of {suffix}" for suffix, count in sorted(left_out.items()) if count and suffix != "hidden"]
    told += [f"{left_out['hidden']} hidden folders"] * bool(left_out["hidden"])
    told += [f"{beside} files beside the labels' folders"] * bool(beside)
    if told:
        log.warning("%s: left out: %s", where, ", ".join(told))


def _refuse_splits(root: Path, folders: list[str], where: str) -> None:
    """Raise JobError where the folders are splits, each with folders of labels, and so no labels themselves."""
    if not folders or not all(_SPLIT.fullmatch(name) for name in folders):
        return
    below = {name: list(os.scandir(root / name)) for name in folders}
    pictures_lie_deeper = all(
        any(entry.is_dir() for entry in entries)
        and not any(os.path.splitext(entry.name)[1].lower() in FORMATS for entry in entries)  # noqa: PTH122
        for entries in below.values()
    )
    if not pictures_lie_deeper:
        return
    fields = {"tr": "train", "va": "validation", "de": "validation", "te": "test", "ev": "test"}
    source = where.rpartition(" ")[2]
    ways = ", ".join(f"spec.data.{fields[name[:2].lower()]}.source to {source}/{name}" for name in folders)
    raise JobError("InvalidData", f"{where}: {', '.join(folders)} are splits and no labels: set {ways}")


def _row(row: int, column: str | None) -> str:
    return f"row {row + 1}, column {column!r}: " if column else ""  # in a folder the path says it all


def name_of(content: str | bytes, row: int, column: str | None) -> str:
    """Return what a message calls a picture: its path, or its row where it stands in a table."""
    return f"row {row + 1}, column {column!r}" if isinstance(content, bytes) else f"{_row(row, column)}{content}"


def _check_headers(inputs: pa.ChunkedArray, where: str, column: str | None) -> None:
    def broken(row: int) -> str:
        content = inputs[row].as_py()
        try:
            open_picture(content).close()
        except PictureError as error:
            return f"{where}: {name_of(content, row, column)}: {error}"
        return ""

    chosen = np.unique(np.linspace(0, len(inputs) - 1, min(len(inputs), CHECKED_IMAGES)).astype(int)).tolist()
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
        content = source.inputs[row].as_py()
        try:
            image = self._decode(content, self._mode)
        except PictureError as error:
            name = name_of(content, row, source.dataset.columns.image)
            raise JobError("InvalidData", f"{source.where}: {name}: {error}") from error
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
