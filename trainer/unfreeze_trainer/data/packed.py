"""Compressed tables: unpacked while they are read, never onto the disk, with a bound on what a small file becomes."""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from unfreeze_trainer.data.suffixes import suffixes
from unfreeze_trainer.errors import JobError, is_passing

MAX_FOLD = 200
"""Times its own size that a file may become: texts of people reach a tenth of it."""
FREE_BYTES = 256 << 20
"""Unpacked bytes up to which nobody asks."""
_BLOCK = 1 << 20


def _gzip(path: str) -> Any:
    import gzip

    return gzip.open(path)


def _bz2(path: str) -> Any:
    import bz2

    return bz2.open(path)


def _zstd(path: str) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.OSFile(path), "zstd")


_OPENERS: dict[str, tuple[str, bytes, Callable[[str], Any]]] = {
    ".gz": ("gzip", b"\x1f\x8b", _gzip),
    ".bz2": ("bzip2", b"BZh", _bz2),
    ".xz": ("xz", b"\xfd7zXZ\x00", lzma.open),
    ".zst": ("Zstandard", b"\x28\xb5\x2f\xfd", _zstd),
}


def open_bytes(path: str, where: str) -> BinaryIO:
    """Open a file to read its content, unpacked where it is compressed.

    Parameters
    ----------
    path
        Its last suffix says how it is compressed.
    where
        What messages start with.

    Raises
    ------
    JobError
        InvalidData, at once or while it is read: it is not what its suffix says, is cut off or broken, or becomes more than
        MAX_FOLD times as large.
    """
    packed = suffixes(path)[1]
    if not packed:
        return Path(path).open("rb")
    name, magic, opener = _OPENERS[packed]
    with Path(path).open("rb") as file:
        head = file.read(len(magic))
    if head != magic:
        what = "is empty" if not head else f"is no {name} file"
        raise JobError("InvalidData", f"{where}: ends in {packed}, and {what}: rename it, or compress it again")
    return io.BufferedReader(_Unpacked(opener(path), Path(path).stat().st_size, where, name), _BLOCK)


def packed_as(path: str) -> str:
    """Return the suffix of the compression that a file has by its first bytes; empty where it has none."""
    with Path(path).open("rb") as file:
        head = file.read(max(len(magic) for _, magic, _ in _OPENERS.values()))
    return next((suffix for suffix, (_, magic, _) in _OPENERS.items() if head.startswith(magic)), "")


def check_fold(unpacked: int, size: int, where: str) -> None:
    """Raise JobError InvalidData where so many bytes come of a file of a size that somebody means to fill the memory."""
    if unpacked > FREE_BYTES and unpacked > MAX_FOLD * size:
        raise JobError(
            "InvalidData",
            f"{where}: its {size:,} bytes become more than {MAX_FOLD} times as many, which texts do not: it is broken, or made to"
            " fill the memory. If it is meant so, save it with less compression",
        )


class _Unpacked(io.RawIOBase):
    """The content of a compressed file.

    Parameters
    ----------
    stream
        Unpacks.
    size
        Bytes of the file.
    where, name
        What messages start with, and the name of the compression.
    """

    def __init__(self, stream: Any, size: int, where: str, name: str) -> None:
        self._stream, self._size, self._where, self._name = stream, size, where, name
        self._given = 0

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read as much as there is room for."""
        try:
            content = self._stream.read(len(buffer))
        except EOFError as error:
            raise self._broken("is cut off") from error
        except (OSError, zlib.error, lzma.LZMAError) as error:
            if is_passing(error):
                raise
            raise self._broken("is cut off" if "Truncated" in str(error) else "is broken") from error
        self._given += len(content)
        check_fold(self._given, self._size, self._where)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        super().close()

    def _broken(self, what: str) -> JobError:
        return JobError(
            "InvalidData",
            f"{self._where}: the {self._name} file {what}, after {self._given:,} bytes of its content: copy or compress it"
            " again",
        )
