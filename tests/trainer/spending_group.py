"""Runs with a budget on two ranks, and on one, on a clock of the test's own: the cases of `test_spending`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

from tests.trainer.engine_group import ENGINES, forget_accelerate
from tests.trainer.jobs import make_job
from tests.trainer.mlp import MLPTask
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.run import Run
from unfreeze_trainer.training.spending import Spending

HOURS = 100 / 3600
"""A budget of 100 seconds."""
TRAINING = {"epochs": 40, "batchSize": 5, "evaluate": {"everySteps": 7}}


class Fresh:
    """A process that takes no time."""

    seconds = 0.1


class Clock:
    """Counts seconds in place of a start's own time."""

    now = 0.0

    def __enter__(self) -> Self:
        self._patches = [
            patch.object(Spending, "_here", property(lambda _: self.now)),
            patch("unfreeze_trainer.training.spending.FreshProcess", Fresh),
            patch("unfreeze_trainer.training.meter.SYNC_SECONDS", 0.0),  # the ranks meet at each step
        ]
        for one in self._patches:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._patches:
            one.stop()


def open_run(folder: Path, *, budget: Any = None, engine: str = "DDP", world: int = 1, **more: Any) -> Run:
    forget_accelerate()
    spec = {
        "training": TRAINING | more.pop("training", {}),
        "output": {"destination": f"file://{folder}"},
        "distribution": {"numNodes": world, **ENGINES[engine]},
        "runPolicy": {"budget": budget} if budget else {},
    } | more
    job, task = make_job("/none", "/none.csv", **spec), MLPTask()
    return Run(job, task, task.build_model(), open_engine(job), None)


def tick(run: Run, clock: Clock, seconds: float = 1.0) -> None:
    """Have each step of a run take so long."""
    after = run.work.after_step

    def later(step: int) -> None:
        clock.now += seconds
        after(step)

    run.work.after_step = later  # type: ignore[method-assign]


def trained(folder: Path, engine: str, world: int) -> tuple[list[tuple[int, str, str]], int]:
    """Train until a budget of 100 steps ends it; return decisions and the step of the best weights."""
    with Clock() as clock:
        run = open_run(folder, budget={"hours": HOURS}, engine=engine, world=world)
        tick(run, clock)
        train(run)
        finish(run)
        run.saver.close()
    assert run.state.best
    return [(one.step, one.type, one.answer) for one in run.state.decisions], run.state.best.step
