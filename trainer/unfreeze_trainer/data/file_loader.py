"""The way from files to a batch: read in threads, a few batches ahead."""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ClassVar, Generic, TypeVar

import numpy as np

from unfreeze_trainer.data.files import FileKind, file_name, threads
from unfreeze_trainer.data.samples import DataSource
from unfreeze_trainer.data.unread import FileError, too_many
from unfreeze_trainer.errors import JobError, one_line, quoted

log = logging.getLogger(__name__)

Opened = TypeVar("Opened")
Prepared = TypeVar("Prepared")
Gathered = TypeVar("Gathered")

PREFETCH_BATCHES = 2
"""Batches that are decoded while the model works on another."""
READ_FILES = 100_000
READ_SECONDS = 5.0
"""Files that are read whole before training, and how long that may take: then those that were read stand for all."""


def spread(count: int) -> np.ndarray:
    """Return range(count) in an order whose every beginning lies evenly in it: by the golden ratio's multiples."""
    return np.argsort(np.arange(count) * ((math.sqrt(5) - 1) / 2) % 1, kind="stable")


class FileLoader(ABC, Generic[Opened, Prepared, Gathered]):
    """Reads files in threads, a few batches ahead."""

    kind: ClassVar[FileKind]

    @abstractmethod
    def decode(self, content: str | bytes) -> Opened:
        """Return what a file shows, of its path or content; FileError if it cannot be read."""

    @abstractmethod
    def prepare(self, opened: Opened, index: int, epoch_seed: int | None) -> Prepared:
        """Return what the model reads of a sample: with a seed it may vary, by that and by the sample's index alone."""

    @abstractmethod
    def blank(self) -> Prepared:
        """Return what stands in the place of a sample that there is none of."""

    @abstractmethod
    def gather(self, prepared: Sequence[Prepared]) -> Gathered:
        """Return the batch of some samples, at least one."""

    def check(self, source: DataSource, rank: int, world_size: int, *, skip: bool, seconds: float) -> None:
        """Read this rank's share of a source's files for some seconds; the others are read when it is their turn.

        Raises
        ------
        JobError
            InvalidData: one cannot be read, or, where they are skipped, more than half cannot.
        """
        rows = spread(len(source.inputs))[:READ_FILES][rank::world_size]
        read, broken = self._try(source, rows, seconds)
        if broken and (not skip or 2 * len(broken) > read):
            raise broken[0] if not skip else too_many(source.where, len(broken), read, broken[0])
        if (total := len(range(rank, len(source.inputs), world_size))) > read:
            log.info(
                "%s: %d of %d %s, evenly spread, were read before the training: the others when it is their turn",
                source.where,
                read * world_size,
                total * world_size,
                self.kind.many,
            )

    def _try(self, source: DataSource, rows: np.ndarray, seconds: float) -> tuple[int, list[JobError]]:
        """Read files for a while, in threads; return how many were read, and what those give that cannot be."""

        def tried(row: int) -> JobError | None:
            try:
                self.open(source, int(row))
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
        source: DataSource,
        batches: Iterable[tuple[Sequence[int], np.ndarray]],
        epoch_seed: int | None,
        skipped: set[int] | None = None,
    ) -> Iterator[tuple[Sequence[int], Gathered]]:
        """Yield each list of indices with its batch; an empty one with that of one blank.

        Parameters
        ----------
        source
            Its inputs are paths, or contents.
        batches
            Pairs of sample indices, which what varies depends on, and rows of the source.
        epoch_seed
            Seed of what varies; nothing does without.
        skipped
            Takes the indices of those that cannot be read, which are blank then; without it the first one is raised.
        """
        waiting: deque[tuple[Sequence[int], list[Future[Prepared]]]] = deque()
        pool = ThreadPoolExecutor(threads(), thread_name_prefix=self.kind.files.replace(" ", "-"))
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

    def _collect(self, indices: Sequence[int], futures: list[Future[Prepared]]) -> tuple[Sequence[int], Gathered]:
        return indices, self.gather([future.result() for future in futures] or [self.blank()])

    def _load(
        self, source: DataSource, row: int, index: int, epoch_seed: int | None, skipped: set[int] | None
    ) -> Prepared:
        try:
            return self._prepare(source, row, index, epoch_seed)
        except JobError:
            if skipped is None:
                raise
            skipped.add(index)
            return self.blank()

    def _prepare(self, source: DataSource, row: int, index: int, epoch_seed: int | None) -> Prepared:
        opened = self.open(source, row)
        try:
            return self.prepare(opened, index, epoch_seed)
        except Exception as error:
            if isinstance(error, MemoryError):
                raise
            why = quoted(one_line(error))
            message = f"{file_name(self.kind, source, row)}: it cannot be prepared ({why}); replace or remove it"
            raise JobError("InvalidData", message) from error

    def open(self, source: DataSource, row: int) -> Opened:
        """Return what the file of a row shows; JobError InvalidData, which names it."""
        try:
            return self.decode(source.content(row))
        except FileError as error:
            raise JobError("InvalidData", f"{file_name(self.kind, source, row)}: {error}") from error
