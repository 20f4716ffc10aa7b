"""Guard Replay: rows of the anchor are trained on beside the new task, so that what the base makes of them stays.

What is learned of a row is what the gauge that the budget is of measures: the loss of its tokens, the divergence of the outputs of the
base's own head, or else the distance of the features that the head reads.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from unfreeze_trainer.data.order import epoch_order
from unfreeze_trainer.errors import JobError, some_of
from unfreeze_trainer.seeds import mix
from unfreeze_trainer.training.forgetting import FEWEST
from unfreeze_trainer.training.looks import MAX_NUMBERS, Look, Seen, evaluating

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.models import LoadedModel
    from unfreeze_trainer.runs.state import RunState
    from unfreeze_trainer.tasks import Batch, Task
    from unfreeze_trainer.training.forgetting import Forgetting
    from unfreeze_trainer.training.plan import Plan

MAX_ROWS = 4096
"""Whose features or outputs of the base are kept."""
_TIMED = 16
"""One step in so many is timed on an accelerator, which has to be waited for."""


class Replay:
    """The rows of a run that are replayed. Making one is collective.

    Parameters
    ----------
    job, task, loaded, engine, plan, forgetting
        Of the run; the engine has taken the model over, and it still is the base, which has been looked at.
    """

    def __init__(
        self, job: ResolvedJob, task: Task, loaded: LoadedModel, engine: Engine, *, plan: Plan, forgetting: Forgetting
    ) -> None:
        self.on = forgetting.guard == "Replay" and forgetting.watches
        self._task, self._engine, self._plan, self._forgetting = task, engine, plan, forgetting
        if not self.on:
            return
        assert job.guard is not None
        assert job.guard.share is not None
        training = job.training
        self._seed, self._batch = training.seed, min(training.batch_size, plan.samples)
        self._each_step = job.guard.share * self._batch
        self._micro = -(-self._batch // (engine.world_size * training.gradient_accumulation_steps))
        self._base = Seen()
        self._outputs: tuple[Tensor, list[int]] | None = None
        self._next = -1
        look = forgetting.look
        left = np.setdiff1d(np.arange(forgetting.total), look.rows)
        most = min(len(left), max(FEWEST, int(self._each_step * plan.total_steps) + 1))
        if task.wide_outputs:
            assert forgetting.base.units is not None
            self._unit = max(1.0, float(forgetting.base.units[forgetting.kept].mean()))
        else:
            most = min(most, MAX_ROWS, max(FEWEST, MAX_NUMBERS // max(1, self._numbers())))
        rows = np.sort(np.random.default_rng([training.seed, len(left)]).permutation(left)[:most])
        self._look = Look(job, task, loaded, engine, split=look.split, rows=rows, head=look.head)
        self._places = np.arange(len(rows))
        if not task.wide_outputs:
            self._look_at_base()

    def _numbers(self) -> int:
        """Return how many outputs of the base's own head there are of a row at most, 0 where it has none. Collective."""
        numbers = max((logs.numel() for logs in self._forgetting.base.outputs.values()), default=0)
        return int(self._engine.all_reduce(torch.tensor([numbers]), dist.ReduceOp.MAX).item())

    def _look_at_base(self) -> None:
        """Have what the base makes of the rows on every rank."""
        self._base = self._look.at_base()
        self._places = np.flatnonzero(self._look.read())
        values = next(reversed(self._forgetting.base.places.values()), None)
        if values is not None:
            spread = np.square(values - values.mean(axis=0)).sum(axis=1).mean()
            self._spread = float(spread) or 1.0
        mine, engine = self._base.outputs, self._engine
        sizes = torch.tensor([0, 0])
        for logs in mine.values():
            sizes = sizes.maximum(torch.tensor(logs.shape))
        places, width = engine.all_reduce(sizes, dist.ReduceOp.MAX).tolist()
        if not width:
            return
        whole = torch.zeros(len(self._look.rows), places, width)
        counts = torch.zeros(len(self._look.rows), dtype=torch.int64)
        for row, logs in mine.items():
            whole[row, : len(logs)], counts[row] = logs, len(logs)
        self._outputs = engine.all_reduce(whole), engine.all_reduce(counts).tolist()
        mine.clear()

    def of_step(self, step: int) -> np.ndarray:
        """Return the rows that a step replays on all ranks together, as places among those that can be, int64 of shape (rows,); a pure function."""
        first, end = int(self._each_step * step), int(self._each_step * (step + 1))
        size = len(self._places)
        found = np.arange(first, end)
        orders = {epoch: epoch_order(mix(self._seed, size), epoch, size) for epoch in {*(found // size).tolist()}}
        chosen = [orders[at // size][at % size] for at in found.tolist()]
        return self._places[np.array(chosen, dtype=np.int64)]

    def _parts(self, step: int) -> list[np.ndarray]:
        """Return this rank's part of a step's rows in micro batches, as many on every rank; some may be empty."""
        rows, ranks = self.of_step(step), self._engine.world_size
        mine = rows[self._engine.rank :: ranks]
        count = -(-len(rows) // (ranks * self._micro))
        return [mine[number * self._micro :][: self._micro] for number in range(count)]

    def _batches(self, step: int) -> Iterator[Batch]:
        parts = itertools.chain.from_iterable(map(self._parts, range(step, self._plan.total_steps)))
        indices = (self._look.rows[part].tolist() for part in parts)
        return self._task.unlabelled(self._look.split, indices, set())

    def add(self, state: RunState, step: int, phase: int) -> None:
        """Add the gradients of what a step replays, before those of its samples. Collective.

        Parameters
        ----------
        state
            Of the run; takes the time.
        step
            That is under way, counted from 0.
        phase
            Its index: nothing is replayed where the head trains alone.
        """
        if not self.on or not self._forgetting.moves(phase) or not len(self._places):
            return
        engine = self._engine
        if state.gradients_at_times and engine.world_size > 1:  # DDP would leave those of this rank alone
            raise JobError(
                "UnsupportedModel",
                "spec.evidence.forgetting.guard: Replay on several workers needs every gradient in every step, and this model gives some weights"
                f" one in some steps only: {some_of(state.gradients_at_times)}. Choose another guard, or one worker",
            )
        timed = engine.device.type == "cpu" or step % _TIMED == 0
        if timed and engine.device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        if step != self._next:
            self._feed = self._batches(step)
        self._next = step + 1
        state.replayed += len(self.of_step(step))
        for own in self._parts(step):
            batch = next(self._feed)
            masked = self._look.masked(batch)
            inputs = engine.to_device(batch)
            with evaluating(engine.module), self._look.watching() as kept, engine.micro_step(last=False):
                run = self._task.forward if self._task.wide_outputs else self._task.outputs
                outputs = run(engine.model, inputs)
                loss = self._loss(kept, inputs, outputs, masked, own)
                engine.backward(loss * (engine.world_size / self._batch), last=False)
        if timed:
            if engine.device.type == "cuda":
                torch.cuda.synchronize()
            state.guard_seconds += (time.perf_counter() - began) * (1 if engine.device.type == "cpu" else _TIMED)

    def _loss(
        self, kept: dict[str, Tensor], inputs: Batch, outputs: Tensor, masked: Tensor | None, own: np.ndarray
    ) -> Tensor:
        """Return the sum of what rows have lost; 0, with gradients, where there are none."""
        if self._task.wide_outputs:
            return self._task.loss(outputs, inputs).sum() / self._unit
        if self._outputs is not None:
            said = self._look.said(kept, inputs, outputs, masked)
            assert said is not None  # as of the base
            return torch.stack([said[0].float().sum() * 0.0, *self._divergences(said, own)]).sum()
        places = dict(self._look.pooled(kept, inputs, outputs))
        top = next(reversed(self._base.places))
        before = torch.from_numpy(self._base.places[top][own]).to(outputs.device)
        return (places[top][: len(own)].float() - before).square().sum() / self._spread

    def _divergences(self, said: list[Tensor], own: np.ndarray) -> Iterator[Tensor]:
        assert self._outputs is not None
        whole, counts = self._outputs
        for row, logits in zip(own.tolist(), said, strict=False):
            if counts[row]:
                before = whole[row, : counts[row]].to(logits.device)
                yield (before.exp() * (before - logits.float().log_softmax(dim=-1))).sum(dim=-1).mean()
