"""From the plan's step numbers to micro batches on this rank: the data's position is the step, nothing else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from unfreeze_trainer.data.order import (
    by_length,
    epoch_order,
    evaluation_shard,
    global_batches,
    grouped_by_length,
    shard,
)
from unfreeze_trainer.seeds import mix

if TYPE_CHECKING:
    from unfreeze_trainer.tasks import Task


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward and backward pass of one rank."""

    tensors: dict[str, Tensor]
    scale: float
    """Factor of the sum of the units' losses, so that the mean over ranks of what all micro batches add is the gradient of
    the mean over the units of the global batch."""
    samples: int
    """0 where a rank's share is empty: a row of padding without loss stands in."""
    units: int
    """Of the loss, of these samples."""
    last: bool
    """Whether the step ends with it."""


class Feed:
    """Batches of one rank.

    Parameters
    ----------
    task
        With the samples.
    seed, batch_size, accumulate, group_by_length
        As in spec.training.
    rank, world_size
        Of the workers.

    Notes
    -----
    The order of samples is a pure function, and the units of each are known to all: so every rank knows the units of the
    global batch without asking the others.

    Where a share is cut into micro batches, samples of similar length come into one, on all ranks at the same time: less
    is padded, and no rank waits for another. The gradient is that of the global batch however it is cut.

    Every rank does the same number of micro batches in a step, whatever its share: for an empty list of samples the task
    gives a row of padding that has no loss, so that the rank still takes part in the collectives.
    """

    def __init__(
        self,
        task: Task,
        *,
        seed: int,
        batch_size: int,
        accumulate: int,
        rank: int,
        world_size: int,
        group_by_length: bool = False,
    ) -> None:
        self._task, self._seed, self._batch_size, self._accumulate = task, seed, batch_size, accumulate
        self._rank, self._world_size = rank, world_size
        self.samples, self._units = task.splits["train"], task.units("train")
        self._chances, self._lengths, self._grouped = task.chances("train"), task.lengths("train"), group_by_length
        self.steps_per_epoch = math.ceil(self.samples / batch_size)

    @property
    def warnings(self) -> list[str]:
        """What of the job makes little sense for its data."""
        if self._batch_size <= self.samples:
            return []
        what = f"spec.training.batchSize {self._batch_size} is more than the {self.samples} training samples"
        return [f"{what}: each epoch is a single step over all of them. Lower it"]

    def sizes(self) -> set[int]:
        """Return how many samples the micro batches of all ranks have; an empty one has a row of padding."""
        batches = {min(self._batch_size, self.samples), self.samples % self._batch_size or self._batch_size}
        found = set()
        for batch in batches:
            count = self._slices(batch)
            for share in (batch // self._world_size, math.ceil(batch / self._world_size)):
                found |= {max(1, share // count), max(1, math.ceil(share / count))}
        return found

    def steps(self, first: int, end: int) -> Iterator[tuple[int, Iterator[MicroBatch]]]:
        """Yield (step, its micro batches) from step `first` up to `end`, across epochs."""
        while first < end:
            epoch, offset = divmod(first, self.steps_per_epoch)
            count = min(self.steps_per_epoch - offset, end - first)
            yield from self._epoch(epoch, offset, count, first)
            first += count

    def _epoch(self, epoch: int, offset: int, count: int, first: int) -> Iterator[tuple[int, Iterator[MicroBatch]]]:
        order = self._order(epoch)

        def plan() -> Iterator[list[tuple[np.ndarray, float, int]]]:
            batches = global_batches(order[offset * self._batch_size :], self._batch_size)
            return map(self._micro_batches, itertools.islice(batches, count))

        # The task may read ahead of the loop, so the plan is made twice rather than shared.
        indices = (micro.tolist() for step in plan() for micro, *_ in step)
        tensors = self._task.batches("train", indices, epoch_seed=mix(self._seed, epoch))

        def micros(step: list[tuple[np.ndarray, float, int]]) -> Iterator[MicroBatch]:
            for number, (indices, scale, units) in enumerate(step, 1):
                yield MicroBatch(next(tensors), scale, len(indices), units, number == len(step))

        for number, step in enumerate(plan(), first):
            yield number, micros(step)

    def _order(self, epoch: int) -> np.ndarray:
        order = epoch_order(self._seed, epoch, self.samples, self._chances)
        if not self._grouped:
            return order
        return grouped_by_length(order, self._lengths, self._batch_size, seed=self._seed, epoch=epoch)

    def padding(self, most: int | None = None) -> float:
        """Return the share of what all ranks compute in the first epoch that is padding; 0 where samples have no lengths.

        Parameters
        ----------
        most
            Batches that are looked at, the first ones; all of them by default.
        """
        given = padded = 0
        for batch in itertools.islice(global_batches(self._order(0), self._batch_size), most):
            for part in (part for rank in range(self._world_size) for part in self._parts(batch, rank)):
                lengths = self._lengths[part]
                given += int(lengths.sum())
                padded += int(lengths.max(initial=0)) * len(lengths)
        return 1 - given / padded if padded else 0.0

    def _micro_batches(self, batch: np.ndarray) -> list[tuple[np.ndarray, float, int]]:
        """Split this rank's share of a global batch into micro batches: sample indices, scale of their losses, units."""
        scale = self._world_size / max(1, self._units_of(batch))
        return [(part, scale, self._units_of(part)) for part in self._parts(batch, self._rank)]

    def _parts(self, batch: np.ndarray, rank: int) -> list[np.ndarray]:
        """Return the samples of each micro batch of a rank."""
        count = self._slices(len(batch))
        mine = shard(by_length(batch, self._lengths) if count > 1 else batch, rank, self._world_size)
        edges = [len(mine) * number // count for number in range(count + 1)]
        return [mine[low:high] for low, high in itertools.pairwise(edges)]

    def _units_of(self, samples: np.ndarray) -> int:
        return int(self._units[samples].sum())

    def _slices(self, batch: int) -> int:
        """Return how many micro batches every rank makes of a global batch of so many samples."""
        return min(self._accumulate, math.ceil(batch / self._world_size))

    @property
    def evaluation_size(self) -> int:
        """Samples of a batch that needs no gradients."""
        trained = math.ceil(self._batch_size / (self._world_size * self._accumulate))
        if self._task.wide_outputs:
            return trained
        return 2 * trained if self._task.heavy_samples else max(32, 2 * trained)

    def evaluation(self, split: str) -> Iterator[dict[str, Tensor]]:
        """Yield this rank's batches of a split, each sample on one rank; every rank has the same number of batches."""
        size = self.evaluation_size
        total = self._task.splits[split]
        mine = evaluation_shard(total, self._rank, self._world_size)
        rounds = math.ceil(math.ceil(total / self._world_size) / size)
        return self._task.batches(split, (mine[low : low + size] for low in range(0, rounds * size, size)))
