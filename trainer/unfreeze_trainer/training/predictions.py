"""The predictions of a split: kept by each rank as it evaluates, brought together a part at a time, written by one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unfreeze_trainer.exports.predictions import FOLDER, About, PredictionsWriter, about
from unfreeze_trainer.objectives.answers import ABSENT, ANSWERED

if TYPE_CHECKING:
    import pyarrow as pa

    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.runs.folder import RunFolder
    from unfreeze_trainer.tasks import Task

log = logging.getLogger(__name__)

MAX_KEPT = 2**27
"""Numbers of a split that the ranks keep together, 512 MiB of logits: of a larger one there are no predictions."""
_PART = 2**20
"""Numbers that are brought together at a time, 4 MiB of logits."""


class Kept:
    """What one rank keeps of a model's outputs on a split.

    Parameters
    ----------
    task, split
        Whose rows these are.
    rank, world_size
        Which samples it evaluates, as `evaluation_shard` deals them out.
    """

    def __init__(self, task: Task, split: str, rank: int, world_size: int) -> None:
        assert task.answers is not None
        self._task, self._counts = task, task.rows_of(split)[rank::world_size]
        rows = int(self._counts.sum())
        self.outputs = torch.empty(rows, task.answers.width, dtype=_dtype(task))
        self.states = torch.full((rows,), ABSENT, dtype=torch.uint8)
        self._samples = self._rows = 0

    @classmethod
    def of(cls, task: Task, split: str, rank: int, world_size: int) -> Kept | None:
        """Return what keeps the outputs of a split, None where there are no answers, or too many numbers."""
        if task.answers is None or not fits(task, split):
            return None
        return cls(task, split, rank, world_size)

    def add(self, outputs: Tensor, batch: dict[str, Tensor]) -> None:
        """Keep the outputs of the next batch; one that only fills up has nothing to keep."""
        values, states = (tensor.cpu() for tensor in self._task.keep(outputs, batch))
        counts = torch.from_numpy(self._counts[self._samples : self._samples + len(values)])
        own = torch.arange(values.shape[1]) < counts[:, None]
        rows = slice(self._rows, self._rows + int(counts.sum()))
        self.outputs[rows], self.states[rows] = values[: len(counts)][own], states[: len(counts)][own]
        self._samples, self._rows = self._samples + len(counts), rows.stop


def _dtype(task: Task) -> torch.dtype:
    assert task.answers is not None
    return torch.from_numpy(np.empty(0, task.answers.dtype)).dtype


def fits(task: Task, split: str) -> bool:
    """Return whether the outputs of a split are kept."""
    assert task.answers is not None
    return int(task.rows_of(split).sum()) * task.answers.width <= MAX_KEPT


class Predictions:
    """Writes predictions/SPLIT.parquet of a run folder.

    Parameters
    ----------
    job, task, engine, folder
        Of the run.
    """

    def __init__(self, job: ResolvedJob, task: Task, engine: Engine, folder: RunFolder) -> None:
        self._inputs = job.output.prediction_inputs == "Include"
        self._job, self._task, self._engine, self._folder = job, task, engine, folder

    def missing(self, split: str, step: int) -> bool:
        """Return whether there are none of a split by the weights of a step, and there might be. Collective."""
        task = self._task
        if task.answers is None or not fits(task, split):
            return False
        found = about(self._folder.path / FOLDER / f"{split}.parquet") if self._folder.generation else None
        return self._engine.any_rank(self._folder.generation is not None and (found is None or found.step != step))

    def write(self, split: str, kept: Kept | None, step: int) -> None:
        """Write what the weights of a step say of a split: all its rows in the order of the source. Collective."""
        if kept is None:
            if self._task.answers is not None and self._folder.generation:
                log.warning("%s: no predictions, since there are more than %s numbers", split, f"{MAX_KEPT:,}")
            return
        generation, writer = self._folder.generation, None
        with ExitStack() as stack:
            if generation:
                aside = generation.aside(f"{split}.parquet")
                writer = stack.enter_context(PredictionsWriter(aside, self._about(split, step)))
            for samples, outputs, states in self._parts(split, kept):
                if writer:
                    writer.write(self._columns(split, samples, outputs.numpy(), states.numpy()))
        if generation:
            generation.commit(aside, self._folder.path / FOLDER / f"{split}.parquet")

    def _about(self, split: str, step: int) -> About:
        answers = self._task.answers
        assert answers is not None
        return About(
            split=split,
            source=self._task.source_of(split),
            step=step,
            task=self._job.task.type,
            kind=answers.kind,
            names=answers.names,
            unseen=answers.unseen,
        )

    def _columns(self, split: str, samples: np.ndarray, outputs: np.ndarray, states: np.ndarray) -> dict[str, pa.Array]:
        import pyarrow as pa

        answers = self._task.answers
        assert answers is not None
        seen = None if ((states == ANSWERED) | (states == ABSENT)).all() else states == ANSWERED
        columns = self._task.known(split, samples, inputs=self._inputs) | answers.columns(outputs, seen)
        if (states != ABSENT).all():
            return columns
        there = pa.array(states != ABSENT)
        return {name: column.filter(there) for name, column in columns.items()}

    def _parts(self, split: str, kept: Kept) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        """Yield samples, and outputs and states of their rows, until all have been there. Collective.

        No rank holds more than a part of what the others keep. Each adds its own rows to zeros, so all come to stand in order.
        """
        engine, counts = self._engine, self._task.rows_of(split)
        ends = np.cumsum(counts)
        taken = start = 0
        while start < len(counts):
            room = (ends[start - 1] if start else 0) + max(1, _PART // (kept.outputs.shape[1] + 1))
            stop = max(start + 1, int(np.searchsorted(ends, room, side="right")))
            samples = np.arange(start, stop)
            mine = torch.from_numpy(np.repeat(samples % engine.world_size == engine.rank, counts[start:stop]))
            own = slice(taken, taken + int(mine.sum()))
            part = kept.outputs.new_zeros(len(mine), kept.outputs.shape[1] + 1)
            part[mine] = torch.cat([kept.outputs[own], kept.states[own, None].to(part.dtype)], dim=1)
            part = engine.all_reduce(part).cpu()
            yield samples, part[:, :-1], part[:, -1].to(torch.uint8)
            start, taken = stop, own.stop
