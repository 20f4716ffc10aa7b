"""The training loop: phases, steps, micro batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from unfreeze_trainer.seeds import seed_everything
from unfreeze_trainer.training.coupled import coupled_step
from unfreeze_trainer.training.rollback import WentBack
from unfreeze_trainer.training.spending import BudgetOver

if TYPE_CHECKING:
    from torch import Tensor

    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.feed import MicroBatch
    from unfreeze_trainer.models.hook import StepHook
    from unfreeze_trainer.tasks import Task
    from unfreeze_trainer.training.run import Run


def train(run: Run) -> None:
    """Train all phases that are left, some of them again where the run goes back.

    Raises
    ------
    StopRequested
        All ranks have agreed to stop; nothing is written yet.
    JobError
        The guard has found weights that do not train, or that should not; or gradients were never finite, or learning
        rates too high; the job's budget has no room for a step and what follows.
    """
    while True:
        try:
            return _phases(run)
        except (WentBack, BudgetOver):
            continue


def _phases(run: Run) -> None:
    engine, task, work, meter, hook = run.engine, run.task, run.work, run.meter, run.hook
    seed, take = run.job.training.seed, coupled_step if task.couples else plain_step
    for phase in work.phases_left():
        work.enter(phase)
        work.solve(phase)
        for step, micro_batches in work.steps(phase):
            run.replay.add(run.state, step, phase.index)
            seed_everything(seed, step, engine.rank)
            engine.set_learning_rates(work.rate_factor(step))
            for micro, loss in take(engine, task, hook, micro_batches, (seed, step, engine.rank)):
                meter.add(loss, micro.samples, task.tokens(micro.tensors), micro.units)
            engine.step()
            work.after_step(step)  # the guard; loss and rates; evaluation; checkpoint


def plain_step(
    engine: Engine,
    task: Task,
    hook: StepHook,
    micros: Iterable[MicroBatch],
    seeds: Sequence[int],  # noqa: ARG001 - of steps that compute micro batches twice
) -> Iterator[tuple[MicroBatch, Tensor]]:
    """Add the gradients of a step, yield each micro batch with the sum of its losses, detached. Parameters as of coupled_step."""
    for micro in micros:
        batch = engine.to_device(micro.tensors)
        with engine.micro_step(last=micro.last):
            loss = task.loss(task.forward(engine.model, batch), batch).sum()
            penalty = hook.penalty() if micro.last else 0.0
            engine.backward(loss * micro.scale + penalty, last=micro.last)
        yield micro, loss.detach()
