"""How good a model is on a split: one exact sum over all ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unfreeze_api.contracts.report import Usefulness
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.modes import to_evaluation
from unfreeze_trainer.training.predictions import Kept

if TYPE_CHECKING:
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.feed import Feed
    from unfreeze_trainer.tasks import Task

_STOP_CHECK_BATCHES = 4


@dataclass(frozen=True)
class Measured:
    """What a pass over a split says of a model."""

    metrics: dict[str, float]
    usefulness: Usefulness | None = None
    """Whether it is better than guessing; None where that has no meaning."""
    kept: Kept | None = None
    """The outputs that this rank has computed, for predictions."""


class Evaluator:
    """Measures what an engine trains on the splits of a task.

    Parameters
    ----------
    engine
        Has the module; a phase has begun.
    task
        Has samples and metrics.
    feed
        Deals the samples out to the ranks.
    metric
        The job's.
    check_stop
        Called now and then in between, on every rank; may raise.
    resume
        Puts the module back into training mode.
    """

    def __init__(
        self,
        engine: Engine,
        task: Task,
        feed: Feed,
        *,
        metric: str,
        check_stop: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self._engine, self._task, self._feed, self._metric = engine, task, feed, metric
        self._check_stop, self._resume = check_stop, resume

    @torch.no_grad()
    def measure(self, split: str) -> Measured:
        """Measure the module on a split: sums are added over all ranks, each sample counts once. Collective.

        Raises
        ------
        JobError
            InvalidData: no sample of it can be read.
        """
        engine, task = self._engine, self._task
        engine.sync_buffers()
        to_evaluation(engine.module)
        sums, rows = task.metrics.state_of(task.splits[split]), list[Tensor]()
        gathers = task.metrics.gathers(task.splits[split])
        kept = Kept.of(task, split, engine.rank, engine.world_size)
        for number, here in enumerate(self._feed.evaluation(split), 1):
            batch = engine.to_device(here)
            with engine.autocast():
                logits = task.forward(engine.module, batch)
            task.metrics.update(sums, logits, batch)
            if kept:
                kept.add(logits, batch)
            if gathers:
                rows.append(task.metrics.rows(logits, batch).cpu())
            if number % _STOP_CHECK_BATCHES == 0:
                self._check_stop()
        self._resume()
        gathered = engine.gather_rows(torch.cat(rows)) if gathers else None
        if not (metrics := task.metrics.compute(engine.all_reduce(sums), gathered)):
            raise JobError(
                "InvalidData", f"spec.data.{split}: none of the {task.splits[split]} samples can be read: correct them"
            )
        if split == "validation" and self._metric not in metrics:
            raise JobError(
                "InvalidData",
                f"spec.training.metric {self._metric} has no value for the samples of spec.data.validation that can be read:"
                " correct the others, or choose another metric",
            )
        return Measured(metrics, task.metrics.usefulness(sums, task.labels, self._metric), kept)
