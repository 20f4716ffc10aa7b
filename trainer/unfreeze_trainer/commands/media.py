"""Pictures and clips of a source: which cannot be read, how large or long they are, and which hold the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze_trainer.data.files import FileKind, file_name, threads
from unfreeze_trainer.data.samples import DataSource
from unfreeze_trainer.data.unread import FileError
from unfreeze_trainer.errors import is_passing, unmarked

_MOST_SECONDS = 600
"""Of a clip that a job can read (maxSeconds)."""


@dataclass(frozen=True, eq=False)
class Media:
    """What was seen of the files of a source."""

    rows: np.ndarray
    """Those that were read, int64."""
    sizes: np.ndarray
    """Width and height in pixels, or seconds and hertz; float64 of shape (rows, 2), NaN where a file is broken."""
    kinds: np.ndarray
    """Mode of each picture, rate of each clip; empty where a file is broken; text of shape (rows,)."""
    hashes: np.ndarray
    """Of the content, int64 of shape (rows,)."""
    broken: list[str]
    """What is wrong with those that cannot be read, with their names."""


def read_media(source: DataSource, kind: FileKind, most: int) -> Media:
    """Read files whole, in threads.

    Parameters
    ----------
    source, kind
        Of pictures or clips.
    most
        Of more, so many at even distances.
    """
    look = _picture if kind.column == "image" else _clip
    count = len(source.inputs)
    rows = (
        np.unique(np.linspace(0, max(0, count - 1), min(count, most)).astype(np.int64))
        if count
        else np.empty(0, np.int64)
    )

    def seen(row: int) -> tuple[tuple[float, float], str, int, str]:
        try:
            size, shown, digest = look(source.content(row))
        except FileError as error:
            return (np.nan, np.nan), "", row, f"{unmarked(file_name(kind, source, row))}: {unmarked(str(error))}"
        return size, shown, digest, ""

    with ThreadPoolExecutor(threads()) as pool:
        found = list(pool.map(seen, rows.tolist(), chunksize=16))
    sizes = np.array([one[0] for one in found], dtype=np.float64).reshape(-1, 2)
    kinds = np.array([one[1] for one in found], dtype=str)
    hashes = np.array([one[2] for one in found], dtype=np.int64)
    return Media(rows, sizes, kinds, hashes, [one[3] for one in found if one[3]])


def _picture(content: str | bytes) -> tuple[tuple[float, float], str, int]:
    from unfreeze_trainer.data.pictures import PictureError, decode, open_picture

    data = _bytes(content, PictureError)
    with open_picture(data) as image:
        size, mode = image.size, image.mode
    decode(data, "RGB")
    return size, mode, _hash(data)


def _clip(content: str | bytes) -> tuple[tuple[float, float], str, int]:
    from unfreeze_trainer.data.clips import ClipError, check, read_header

    header = read_header(content)
    check(content, _MOST_SECONDS)  # in parts: minutes of several channels take gigabytes in several threads
    digest = _hash(content) if isinstance(content, bytes) else _hash_of_file(content, ClipError)
    return (header.seconds, header.rate), f"{header.rate} Hz", digest


def _bytes(content: str | bytes, broken: Callable[[str], FileError]) -> bytes:
    if isinstance(content, bytes):
        return content
    with _reading(broken):
        return Path(content).read_bytes()


@contextmanager
def _reading(broken: Callable[[str], FileError]) -> Iterator[None]:
    """Have a file that cannot be read be a broken one, unless it may be read later."""
    try:
        yield
    except OSError as error:
        if is_passing(error):
            raise
        raise broken(f"it cannot be read ({error.strerror})") from error


def _hash_of_file(path: str, broken: Callable[[str], FileError]) -> int:
    """Return what `_hash` does of a file's content, of which a part at a time is in memory."""
    with _reading(broken), Path(path).open("rb") as file:
        return _number(hashlib.file_digest(file, _digest).digest())


def _hash(data: bytes) -> int:
    return _number(_digest(data).digest())


def _digest(data: bytes = b"") -> Any:
    return hashlib.blake2b(data, digest_size=8)


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little", signed=True)
