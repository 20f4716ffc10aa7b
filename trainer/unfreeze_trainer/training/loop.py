"""The training loop: phases, steps, micro batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unfreeze_trainer.seeds import seed_everything

if TYPE_CHECKING:
    from unfreeze_trainer.training.run import Run


def train(run: Run) -> None:
    """Train all phases that are left.

    Raises
    ------
    StopRequested
        All ranks have agreed to stop; nothing is written yet.
    JobError
        The guard has found weights that do not train, or that should not; or gradients were never finite.
    """
    engine, task, work, meter, hook = run.engine, run.task, run.work, run.meter, run.hook
    seed = run.job.training.seed
    for phase in work.phases_left():
        work.enter(phase)
        for step, micro_batches in work.steps(phase):
            seed_everything(seed, step, engine.rank)
            engine.set_learning_rates(work.rate_factor(step))
            for micro in micro_batches:
                batch = engine.to_device(micro.tensors)
                with engine.micro_step(last=micro.last):
                    loss = task.loss(task.forward(engine.model, batch), batch).sum()
                    penalty = hook.penalty() if micro.last else 0.0
                    engine.backward(loss * micro.scale + penalty, last=micro.last)
                meter.add(loss.detach(), micro.samples, task.tokens(micro.tensors), micro.units)
            engine.step()
            work.after_step(step)  # the guard; loss and rates; evaluation; checkpoint
