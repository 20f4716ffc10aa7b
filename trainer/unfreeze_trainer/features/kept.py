"""Rows of a cut in a folder that outlives the job: files that are written once, named by their content, and read row by row.

    FOLDER/KEY/HASH.rows

KEY is the cut's (`features.keys`), HASH that of the file's head, which has for each row the hash of its input, that of its numbers, and
where these begin. So a row is read only where all of it is what was written: what is cut off or changed counts as absent. Files are written under
another name and renamed, by as many processes as there are; nobody waits for anybody. The hashes tell of accidents, not of whoever may write to
the folder: see docs/security.md.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import stat
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unfreeze_trainer.features.room import available_bytes

log = logging.getLogger(__name__)

DIGEST = 32
"""Bytes of each hash, BLAKE2b."""
_MAGIC = b"unfreeze rows 1\n"
_COUNT = struct.Struct("<Q")
_ENTRY = np.dtype([("key", f"V{DIGEST}"), ("digest", f"V{DIGEST}"), ("offset", "<u8"), ("size", "<u8")])
_MOST_ROWS = 2**22
"""Of a file."""
PART = 64 * 2**20
"""Bytes of rows in a file, about."""
_NAME = re.compile(r"[0-9a-f]{64}\.rows")
_KEY = re.compile(r"[0-9a-f]{64}")
_ASIDE = ".aside-"
_OLD_SECONDS = 86400.0
"""Age at which a file that nobody has finished is removed."""
_OPEN = 128
"""Files that are open at a time."""
_INDEX_BYTES, _INDEX_SHARE = 512, 0.25
"""Of memory, what is noted of a row, and the share of a cache in memory that all notes take at most."""
_HOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SPARED_BYTES = 2**30
"""Of the disk, that a cache leaves free."""


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """Return the hash of some bytes."""
    return hashlib.blake2b(data, digest_size=DIGEST).digest()


@dataclass(frozen=True)
class _Place:
    file: Path
    digest: bytes
    offset: int
    size: int


class Kept:
    """The rows of one cut.

    What fails in the folder is logged once, and from then on nothing is read or written: a job never fails for its cache.

    Parameters
    ----------
    folder
        Of the cache; made if need be.
    key
        Of the cut, 64 hexadecimal digits.
    limit
        Bytes that all files of the folder take at most; those that were used longest ago make room.
    looks
        Whether nothing is to be changed there, and rows are but counted.
    """

    def __init__(self, folder: Path, key: str, limit: int, *, looks: bool = False) -> None:
        self._root, self._folder, self._limit = folder, folder / key, limit
        self._places: dict[bytes, _Place] = {}
        self._open: dict[Path, int] = {}
        self._added: set[bytes] = set()
        self._own: set[Path] = set()
        self._waiting: dict[bytes, bytes] = {}
        self._size = 0
        self._looks, self._writes = looks, not looks
        self.written = 0
        """Bytes of rows that were added."""
        most = int(_INDEX_SHARE * available_bytes()) // _INDEX_BYTES
        try:
            if not looks:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif not self._folder.is_dir():
                return
            for file in sorted(self._folder.iterdir()):
                if _NAME.fullmatch(file.name):
                    self._index(file, most)
        except OSError as error:
            self._give_up(error)

    @property
    def name(self) -> str:
        """Of the folder of this cut."""
        return self._folder.name

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def _index(self, file: Path, most: int) -> None:
        """Take note of the rows of a file, unless it is not what its name says; of so many rows in all."""
        try:
            entries = _entries(file)
        except OSError:  # has made room, or is somebody else's alone
            return
        if entries is None:
            if not self._looks:
                log.warning("%s is not what was written there: its rows are computed again", file)
                self._remove(file)
            return
        if len(self._places) + len(entries) > most:
            return
        self._note(file, entries)
        if not self._looks:
            with suppress(OSError):  # who may only read does not say that it has
                os.utime(file)

    def _note(self, file: Path, entries: np.ndarray) -> None:
        for key, value, offset, size in zip(
            entries["key"], entries["digest"], entries["offset"].tolist(), entries["size"].tolist(), strict=True
        ):
            self._places[key.tobytes()] = _Place(file, value.tobytes(), offset, size)
        self._own.add(file)

    def get(self, key: bytes, size: int) -> bytearray | None:
        """Return the numbers of the row with an input of this hash, so many bytes; None where there is none, or not as it was written."""
        if (waiting := self._waiting.get(key)) is not None and len(waiting) == size:
            return bytearray(waiting)
        place = self._places.get(key)
        if place is None or place.size != size:
            return None
        found = bytearray(place.size)
        try:
            read = os.preadv(self._opened(place.file), [found], place.offset)
        except OSError:  # the file has made room, on another machine
            read = -1
        if read == place.size and digest(found) == place.digest:
            return found
        del self._places[key]
        return None

    def _opened(self, file: Path) -> int:
        number = self._open.get(file)
        if number is None:
            if len(self._open) >= _OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[file] = number = os.open(file, _HOW)
        return number

    def discard(self) -> None:
        """Take all that is there away, for everybody."""
        self._places.clear()
        for file in self._own:
            self._remove(file)
        self._own.clear()
        self._added = set(self._waiting)

    def added(self, key: bytes) -> bool:
        """Return whether a row has been added here, and does not come from elsewhere."""
        return key in self._added

    def add(self, key: bytes, data: bytes) -> None:
        """Keep the numbers of a row, by the hash of its input; `flush` writes them."""
        if not self._writes or key in self._added:
            return
        self._added.add(key)
        self._waiting[key] = data
        self._size += len(data)

    def flush(self, least: int = 0) -> None:
        """Write what waits for it, if it is so many bytes."""
        if self._size < least:
            return
        rows, self._waiting, self._size = self._waiting, {}, 0
        if not rows or not self._writes:
            return
        try:
            self._write(rows)
        except OSError as error:
            self._give_up(error)

    def _write(self, rows: dict[bytes, bytes]) -> None:
        head = _head(list(rows), list(rows.values()))
        size = len(head) + sum(map(len, rows.values()))
        if not self._make_room(size):
            log.warning("%s is full: it takes no more rows of this job", self._root)
            self._writes = False
            return
        name = self._folder / f"{digest(head).hex()}.rows"
        number, aside = tempfile.mkstemp(prefix=_ASIDE, dir=self._folder)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(head)
                file.writelines(rows.values())
                file.flush()
                os.fsync(file.fileno())
            Path(aside).rename(name)
        except BaseException:
            with suppress(OSError):
                Path(aside).unlink()
            raise
        self._note(name, np.frombuffer(head, dtype=_ENTRY, offset=len(_MAGIC) + _COUNT.size))
        self.written += size

    def _make_room(self, size: int) -> bool:
        """Remove what was used longest ago until there is room for a file; return whether there is."""
        found = []
        now = time.time()
        for file in _all_files(self._root):
            with suppress(OSError):
                state = file.lstat()
                if _NAME.fullmatch(file.name):
                    found.append((state.st_mtime, state.st_size, file))
                elif now - state.st_mtime > _OLD_SECONDS:
                    file.unlink()
        used = sum(length for _, length, _ in found)
        free = shutil.disk_usage(self._root).free - _SPARED_BYTES
        if size > free + used:  # others fill the disk: what is here would be lost for nothing
            return False
        for _, length, file in sorted(found):
            if used + size <= self._limit and size <= free:
                break
            if file not in self._own and self._remove(file):
                used, free = used - length, free + length
        return used + size <= self._limit and size <= free

    @staticmethod
    def _remove(file: Path) -> bool:
        """Return whether it is gone."""
        try:
            file.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _give_up(self, error: OSError) -> None:
        log.warning("the cache %s is left alone: %s", self._root, error)
        self._places.clear()
        self._writes = False

    def close(self) -> None:
        """Write what waits, and let go of the files."""
        self.flush()
        for number in self._open.values():
            with suppress(OSError):
                os.close(number)
        self._open.clear()
        self._places.clear()


def _head(keys: Sequence[bytes], values: Sequence[bytes]) -> bytes:
    """Return what a file begins with: how many rows there are, and where."""
    entries = np.empty(len(keys), dtype=_ENTRY)
    sizes = np.fromiter(map(len, values), dtype=np.uint64, count=len(values))
    start = len(_MAGIC) + _COUNT.size + entries.nbytes
    entries["key"] = np.frombuffer(b"".join(keys), dtype=f"V{DIGEST}")
    entries["digest"] = np.frombuffer(b"".join(map(digest, values)), dtype=f"V{DIGEST}")
    entries["offset"] = start + np.cumsum(sizes) - sizes
    entries["size"] = sizes
    return _MAGIC + _COUNT.pack(len(keys)) + entries.tobytes()


def _entries(file: Path) -> np.ndarray | None:
    """Return the rows of a file; None where it is none, its head is not that of its name, or it is not as long as it says."""
    if not stat.S_ISREG(file.lstat().st_mode):
        return None
    number = os.open(file, _HOW)
    try:
        return _head_of(number, file.stem)
    finally:
        os.close(number)


def _head_of(number: int, name: str) -> np.ndarray | None:
    start = len(_MAGIC) + _COUNT.size
    first = os.pread(number, start, 0)
    if len(first) != start or not first.startswith(_MAGIC):
        return None
    [count] = _COUNT.unpack(first[len(_MAGIC) :])
    if count > _MOST_ROWS:
        return None
    rest = os.pread(number, count * _ENTRY.itemsize, start)
    if digest(first + rest).hex() != name or len(rest) != count * _ENTRY.itemsize:
        return None
    entries = np.frombuffer(rest, dtype=_ENTRY)
    end, size = start + len(rest), os.fstat(number).st_size
    inside = (entries["offset"] >= end) & (entries["offset"] <= size) & (entries["size"] <= size - entries["offset"])
    return entries if inside.all() else None


def _all_files(root: Path) -> Iterator[Path]:
    """Yield what caches have written below a folder, whole or not; nothing else that lies there."""
    for folder in root.iterdir():
        if _KEY.fullmatch(folder.name) and not folder.is_symlink() and folder.is_dir():
            with suppress(OSError):  # is somebody else's alone
                for file in list(folder.iterdir()):
                    if _NAME.fullmatch(file.name) or file.name.startswith(_ASIDE):
                        yield file
