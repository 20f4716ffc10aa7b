"""A task whose frozen blocks have computed already: its batches bring their outputs, its forward pass starts behind them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from statistics import median_low
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze_trainer.features.cut import Batch as Inputs
from unfreeze_trainer.features.cut import Cut, Start, length_of, padded, rows_of
from unfreeze_trainer.features.keys import row_keys
from unfreeze_trainer.features.memory import Rows, Scratch
from unfreeze_trainer.features.reuse import Place, Reuse
from unfreeze_trainer.features.room import available_bytes, available_disk
from unfreeze_trainer.models.remembering import Remembering
from unfreeze_trainer.objectives.base import LEARNED

if TYPE_CHECKING:
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.tasks import Batch, Task

log = logging.getLogger(__name__)

VALUES = "cached."
"""What the tensors that are cached are called in a batch, with their numbers."""
_LINE = 6
"""How many batches tell how time goes with length."""
MIN_READS = 1.5
"""How often a sample is read, at least, in the phases that share a cut: what is read once is not cached."""
_CHECK_BATCHES = 4


@dataclass
class Saved:
    """What the cache has done for a run, on this rank."""

    hits: int = 0
    """Samples whose frozen blocks did not compute."""
    reused: int = 0
    """Samples of which another job, or an earlier part of this one, had computed what is cached."""
    bytes: int = 0
    """What lies in it now."""
    seconds: float = 0.0
    """About what it has saved: what the samples took to compute, for each that was not, less what filling it took."""


def worth_it(task: Task, reads: Mapping[str, float]) -> list[str]:
    """Return the splits that are read often enough to be cached, and are the same each time; `reads` as of `enter`."""
    return [split for split, times in reads.items() if times >= MIN_READS and task.repeats(split)]


def split_bytes(task: Task, cut: Cut, split: str) -> int:
    """Return how much the samples of a split take."""
    lengths, times = np.unique(task.lengths(split), return_counts=True)
    return sum(cut.row_bytes(int(length)) * int(count) for length, count in zip(lengths, times, strict=True))


def has_room(task: Task, cut: Cut, place: Place | None) -> bool:
    """Return whether this worker's memory, or its disk, has room for what a cut gives of all samples; `place` as of `CachedTask`."""
    size = sum(split_bytes(task, cut, split) for split in ("train", "validation") if task.repeats(split))
    return size <= available_bytes() or (place is not None and size <= available_disk(place.scratch_limit))


def _part(batch: Batch, places: Sequence[int]) -> Batch:
    """Return some samples of a batch, all of them without a copy. Where each has several texts, the first ones of all stand first."""
    count = len(next(iter(batch.values())))
    if len(places) == count:
        return batch
    chosen = list(places)
    return {
        name: tensor.reshape(len(tensor) // count, count, *tensor.shape[1:])[:, chosen].flatten(0, 1)
        for name, tensor in batch.items()
        if name != LEARNED
    }


class _Pace:
    """How long a sample's pass through the frozen blocks takes, by batches of samples of similar length."""

    def __init__(self) -> None:
        self._first: list[tuple[float, float]] = []
        self._seen: list[tuple[float, float]] = []
        self._length, self._begun = 1.0, False

    def note(self, seconds: float, lengths: np.ndarray) -> None:
        """Take note of a batch and of the lengths of its samples."""
        (self._seen if self._begun else self._first).append((float(lengths.mean()), seconds / len(lengths)))
        self._begun = True

    def settle(self, lengths: np.ndarray) -> None:
        """Take note of the lengths of a split, all of whose batches have been noted."""
        self._length, self._begun = float(lengths.mean()), False

    def seconds(self, stretch: float = 1.0) -> float:
        """Return what a sample of mean length takes, times `stretch`; 0 where nothing was computed.

        A sample takes some time however short it is, and a split's first batch is slow. Of few batches, where most was known already, only
        their median is taken, as if time went with length.
        """
        if not (seen := self._seen or self._first):
            return 0.0
        at = self._length * stretch
        lengths, seconds = np.array(seen).T
        if len(lengths) >= _LINE and np.ptp(lengths):
            slope, least = np.polyfit(lengths, seconds, 1)
            return float(max(least + slope * at, seconds.min()))
        return median_low((seconds / lengths).tolist()) * at


class CachedTask:
    """A task as any other, whose batches have what frozen blocks make of them while a cut is in use.

    Parameters
    ----------
    task
        Whatever is not about batches and forward passes is its own.
    engine
        Has taken the module over.
    place
        Where rows are kept beyond the job; None for nowhere, and then they lie in memory or not at all.
    """

    cuts: Mapping[int, Cut] = MappingProxyType({})
    """By phase; phases without one are computed whole."""
    keys: Mapping[int, str] = MappingProxyType({})
    """Hashes of what the cuts' values depend on, by phase, where they are kept beyond the job."""
    batch = 32
    """Samples of a batch without gradients."""

    def __init__(self, task: Task, engine: Engine, place: Place | None = None) -> None:
        self._task, self._engine = task, engine
        self._place = place
        self._cut: Cut | None = None
        self._start: Start | None = None
        self._rows: dict[str, Rows] = {}
        self.saved = Saved()
        self._pace = _Pace()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def sample_seconds(self, stretch: float = 1.0) -> float:
        """Return what this rank takes for a sample's pass through the frozen blocks; 0 where nothing was cached.

        Parameters
        ----------
        stretch
            How many times longer a sample is by its padding.
        """
        return self._pace.seconds(stretch)

    def enter(self, phase: int, reads: Mapping[str, float], *, beat: Callable[[int, int], None]) -> None:
        """Fill the cache for a phase, where it pays; what another cut has left is let go. Collective.

        Parameters
        ----------
        phase
            Its index.
        reads
            How often each sample of a split is still read in it, by split.
        beat
            Called now and then with the samples that are done, and all; may raise, on every rank.
        """
        cut = self.cuts.get(phase)
        if cut is not self._cut:
            self._rows.clear()
            self._pace = _Pace()
            self.saved.bytes = 0
            self._cut, self._start = cut, Start(self._engine.module, cut) if cut else None
        if cut is None:
            return
        wanted = [split for split in worth_it(self._task, reads) if split not in self._rows]
        size = sum(split_bytes(self._task, cut, split) for split in wanted)
        engine, room = self._engine, available_bytes()
        scratch: dict[str, Scratch] = {}
        if engine.any_rank(size > room):
            scratch = self._on_disk(cut, wanted, size)
            if engine.any_rank(len(scratch) < len(wanted)):
                log.warning(
                    "the outputs of frozen blocks are computed in each step: they would take %.1f GB of memory, and there is room for"
                    " %.1f; nor has the disk for what is temporary room for them",
                    size / 1e9,
                    room / 1e9,
                )
                return
            log.info(
                "the outputs of frozen blocks lie on the disk, %.1f GB: memory has room for %.1f",
                size / 1e9,
                room / 1e9,
            )
        key = self.keys.get(phase)
        reuse = Reuse(self._place, key, cut, engine.dtype) if self._place and key else None
        try:
            for split in wanted:
                self._fill(cut, split, beat, reuse, scratch.get(split))
        finally:
            if reuse:  # a stop keeps what has been computed
                reuse.close()
        self.saved.bytes = sum(rows.bytes for rows in self._rows.values())

    def _on_disk(self, cut: Cut, splits: Sequence[str], size: int) -> dict[str, Scratch]:
        """Return a place for each split on the disk; not for all of them where there is no room."""
        found: dict[str, Scratch] = {}
        with suppress(OSError):
            if self._place and size <= available_disk(self._place.scratch_limit):
                for split in splits:
                    found[split] = Scratch(split_bytes(self._task, cut, split))
        return found

    def _fill(
        self, cut: Cut, split: str, beat: Callable[[int, int], None], reuse: Reuse | None, scratch: Scratch | None
    ) -> None:
        """Do as `_fill_once`; encoders of bridges compute equal inputs once, where memory has room for what they gave beside the rows."""
        encoders = [part for part in self._engine.module.modules() if isinstance(part, Remembering)]
        if encoders and (scratch is not None or 2 * split_bytes(self._task, cut, split) > available_bytes()):
            encoders = []
        with ExitStack() as stack:
            for part in encoders:
                stack.enter_context(part.remembering(row_keys))
            self._fill_once(cut, split, beat, reuse, scratch)

    @torch.no_grad()
    def _fill_once(
        self, cut: Cut, split: str, beat: Callable[[int, int], None], reuse: Reuse | None, scratch: Scratch | None
    ) -> None:
        """Compute what is cached of each sample of a split once, the ranks share them out; every rank gets all.

        What `reuse` has is not computed, but for some rows of each rank that are compared with it.
        """
        engine, task = self._engine, self._task
        began, module = time.perf_counter(), engine.module
        order = np.argsort(task.lengths(split), kind="stable")[::-1]
        lists = [order[low : low + self.batch].tolist() for low in range(0, len(order), self.batch)]
        mine = lists[engine.rank :: engine.world_size]
        if reuse:
            reuse.draw(mine)
        rounds = -(-len(lists) // engine.world_size)
        rows = Rows(task.splits[split], cut.shapes, scratch)
        modes = [(part, part.training) for part in module.modules()]
        module.eval()
        foreign = False
        lengths = np.maximum(task.lengths(split), 1)  # those without any are alike
        batches = task.batches(split, iter(mine + [[]] * (rounds - len(mine))))
        for number, batch in enumerate(batches, 1):
            indices = mine[number - 1] if number <= len(mine) else []
            known = self._found(cut, batch, reuse, wanted=bool(indices)) if reuse else {}
            missing = [place for place in range(len(indices)) if place not in known]
            if engine.any_rank(bool(missing)) if engine.divides and reuse else missing or not indices:
                start = time.perf_counter()
                new = self._rows_at(module, cut, batch, missing)
                foreign |= new is None
                if missing and new and not foreign:
                    self._pace.note(time.perf_counter() - start, lengths[[indices[place] for place in missing]])
                    known |= reuse.keep(new) if reuse else new
            if not foreign:
                rows.add([indices[place] for place in known], list(known.values()))
            if number % _CHECK_BATCHES == 0:
                beat(min(number * self.batch * engine.world_size, len(order)), len(order))
        for part, training in modes:
            part.training = training
        if engine.any_rank(foreign):
            log.warning("all blocks compute in each step: of some %s samples their outputs have another shape", split)
            return
        self._pace.settle(lengths)
        self.saved.seconds -= time.perf_counter() - began
        if reuse:
            self.saved.reused += reuse.taken
            reuse.tell(split, rows.count)
        self._share(split, rows, [index for indices in mine for index in indices])
        self._rows[split] = rows

    def _found(self, cut: Cut, batch: Batch, reuse: Reuse, *, wanted: bool) -> dict[int, tuple[Tensor, ...]]:
        """Return what `reuse` has of a batch, by place, some of it compared: nothing where that differs, or none of it is wanted."""
        engine = self._engine
        known = reuse.find(batch) if wanted else {}
        drawn = reuse.draw_places() if wanted else []
        if engine.any_rank(bool(drawn)) if engine.divides else drawn:
            again = self._rows_at(engine.module, cut, batch, drawn)
            if drawn and again and not reuse.holds(known, again):
                return {}
        return known

    def _rows_at(
        self, module: nn.Module, cut: Cut, batch: Batch, places: Sequence[int]
    ) -> dict[int, tuple[Tensor, ...]] | None:
        """Compute what is cached of some samples of a batch, by place, a stand-in where there is none; None where it has another shape."""
        values, here = self._computed(module, cut, _part(batch, places or [0]))
        sizes = [shape(len(places) or 1, length_of(here)) for shape in cut.shapes]
        if [tuple(value.shape) for value in values] != sizes:
            return None
        found = (tuple(value.cpu() for value in row) for row in rows_of(values, cut.shapes, here))
        return dict(zip(places, found, strict=False))

    def _computed(self, module: nn.Module, cut: Cut, batch: Batch) -> tuple[list[Tensor], Inputs]:
        """Return what is cached of a batch, padded, and the batch on its device."""
        engine, task = self._engine, self._task
        here = engine.to_device(batch)

        def run() -> None:
            with engine.autocast():
                task.forward(module, here)

        # Of a model that is divided the types were found on the CPU, where an accelerator's autocast changes nothing.
        values = cut.capture(module, run, stop=not engine.divides)
        return [value.to(shape.dtype) for value, shape in zip(values, cut.shapes, strict=False)], here

    def _share(self, split: str, rows: Rows, mine: Sequence[int]) -> None:
        """Bring the rows of all ranks together, of which this one has computed some. Collective."""
        engine = self._engine
        if engine.world_size == 1:
            return
        own = rows.packed(mine)
        for owner in range(engine.world_size):
            while part := engine.broadcast_object(next(own, {}) if owner == engine.rank else {}, source=owner):
                if owner != engine.rank:
                    rows.unpack(part)
        unread = engine.gather_json(sorted(self._task.unread.get(split, ())), list[int])
        if any(unread):
            self._task.unread[split].update(*unread)

    def batches(
        self, split: str, batches: Iterable[Sequence[int]], *, epoch_seed: int | None = None
    ) -> Iterator[Batch]:
        """Yield the batch of each list of sample indices, on the CPU, as the task does, or with what is cached of them."""
        rows, cut = self._rows.get(split), self._cut
        if rows is None or cut is None:
            yield from self._task.batches(split, batches, epoch_seed=epoch_seed)
            return
        spared = self.sample_seconds()
        for indices, batch in self._task.remembered(split, batches):
            self.saved.hits += len(indices)
            self.saved.seconds += len(indices) * spared
            yield self._with_values(cut, rows, indices if len(indices) else [0], batch)

    def _with_values(self, cut: Cut, rows: Rows, indices: Sequence[int], batch: Batch) -> Batch:
        values = padded([rows[index] for index in indices], cut.shapes, batch)
        return {**batch, **{f"{VALUES}{number}": value for number, value in enumerate(values)}}

    def forward(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the model's outputs, of shape (samples, outputs); of what is cached only the rest computes."""
        values = [tensor for name, tensor in batch.items() if name.startswith(VALUES)]
        if not values or self._cut is None or self._start is None:
            return self._task.forward(module, batch)
        inputs = {name: tensor for name, tensor in batch.items() if not name.startswith(VALUES)}
        with self._start.at(values, length_of(inputs)):
            return self._task.forward(module, self._cut.complete(inputs, values))
