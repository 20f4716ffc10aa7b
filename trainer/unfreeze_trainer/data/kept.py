"""Rows that are kept while a table is read: in memory as far as they are few, else in a file that is mapped into it.

Pages of a mapped file are the system's to drop and to read again, so that data may be larger than a pod's memory. The file has no
name: it is gone with the process, however that ends.
"""

from __future__ import annotations

import logging
import mmap
import os
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from unfreeze_trainer.errors import is_passing

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

IN_MEMORY = 64 << 20
"""Bytes of a source that are kept in memory."""
ON_DISK = 16 << 30
"""Bytes that all workers of a pod together keep in files; what is beyond that is kept in memory."""


class Kept:
    """The parts of a table, in their order. Some are written by a thread while the next ones are read."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []
        self._files: list[_Mapped] = []
        self._waiting = self._written = 0
        self._most = ON_DISK // max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[list[pa.Table]] | None = None

    def add(self, part: pa.Table) -> None:
        """Keep a part; its schema may be another one than those of the parts before."""
        self._parts.append(part)
        self._waiting += part.nbytes
        if (self._writer or self._waiting > IN_MEMORY) and self._written + self._waiting <= self._most:
            self._write()

    def whole(self) -> pa.Table:
        """Return one table; parts without rows do not count for its types. At least one part has been added."""
        import pyarrow as pa

        if self._writer:
            if self._written + self._waiting <= self._most:
                self._write()
            self._settle()
            self._writer.shutdown()
        parts = [part for file in self._files for part in file.read()] + self._parts
        kept = [part for part in parts if part.num_rows] or parts[:1]
        return kept[0] if len(kept) == 1 else pa.concat_tables(kept, promote_options="permissive")

    def _write(self) -> None:
        """Have what is in memory written into files, once what was before is."""
        self._settle()
        if self._most < 0:
            return
        self._writer = self._writer or ThreadPoolExecutor(1, thread_name_prefix="rows")
        self._writing = self._writer.submit(self._write_parts, self._parts)
        self._written, self._waiting, self._parts = self._written + self._waiting, 0, []

    def _settle(self) -> None:
        """Wait for what is written; what a disk cannot hold stays in memory, as does all that follows."""
        if self._writing and (left := self._writing.result()):
            self._parts, self._most = left + self._parts, -1
        self._writing = None

    def _write_parts(self, parts: list[pa.Table]) -> list[pa.Table]:
        """Write parts one by one; return those that are left where the disk holds no more."""
        try:
            while parts:
                if not self._files or self._files[-1].schema != parts[0].schema:
                    self._files.append(_Mapped(parts[0].schema))
                self._files[-1].write(parts[0])
                del parts[0]
        except OSError as error:
            if is_passing(error):
                raise
            log.warning("rows are kept in memory, since %s cannot hold them: %s", tempfile.gettempdir(), error)
        return parts


class _Mapped:
    """A file of parts with one schema."""

    def __init__(self, schema: pa.Schema) -> None:
        import pyarrow as pa

        self.schema = schema
        number, name = tempfile.mkstemp(prefix="unfreeze-rows-")
        self._file: IO[bytes] = os.fdopen(number, "r+b")  # held by what is read
        try:
            self._sink = pa.OSFile(name, "wb")  # takes what it is given without a copy in Python
        finally:
            Path(name).unlink()
        self._writer: Any = pa.ipc.new_stream(self._sink, schema)
        self._end = 0
        """Behind the last part that is whole."""

    def write(self, part: pa.Table) -> None:
        """Add a part; OSError where the disk does not hold it: the parts before it can be read, and none be added."""
        try:
            self._writer.write_table(part)
        except OSError:
            os.ftruncate(self._file.fileno(), self._end)
            raise
        self._end = self._sink.tell()

    def read(self) -> list[pa.Table]:
        """Return all parts that are whole, as memory that the file is mapped to; nothing can be added then."""
        import pyarrow as pa

        if not self._end:
            return []
        # A stream may end without its mark, which a full disk does not hold.
        mapped = mmap.mmap(self._file.fileno(), self._end, access=mmap.ACCESS_READ)
        with pa.ipc.open_stream(pa.BufferReader(pa.py_buffer(mapped))) as reader:
            return [reader.read_all()]
