"""Range tests on two ranks, and on one: the cases of `test_range_test`."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.trainer.engine_group import ENGINES, forget_accelerate
from tests.trainer.jobs import make_job
from tests.trainer.mlp import MLPTask
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.training.run import Run

TRAINING = {"epochs": 14, "batchSize": 5, "checkpoint": {"everySteps": 3}, "evaluate": {"everySteps": 4}}


def task(*, plain: bool = False) -> MLPTask:
    return MLPTask(dropout=0.0 if plain else 0.1, norm=not plain)


def open_run(
    folder: Path,
    given: MLPTask | None = None,
    *,
    head: float | None = None,
    backbone: float | None = None,
    engine: str = "DDP",
    world: int = 1,
    strategy: str = "LinearProbeThenFineTune",
    link=None,
    **training,
) -> Run:
    forget_accelerate()
    rate = {"head": head, "backbone": backbone} if backbone else {"head": head} if head else {"rates": "Auto"}
    job = make_job(
        "/none",
        "/none.csv",
        strategy={"type": strategy, "learningRate": rate},
        training=TRAINING | training,
        output={"destination": f"file://{folder}"},
        distribution={"numNodes": world, **ENGINES[engine]},
    )
    given = given or task()
    return Run(job, given, given.build_model(), open_engine(job), link)


def rates(folder: Path, engine: str, world: int) -> tuple[tuple[float, float], bool]:
    """Return what a run chooses, and whether its weights are then those of the base."""
    made = task(plain=True)
    run = open_run(folder, made, engine=engine, world=world)
    base = dict(made.build_model().module.named_parameters())
    phase = run.plan.phases[-1]
    run.trainable.begin(phase)
    found = run.engine.weights(base.keys())
    same = all(torch.equal(tensor, base[name].detach()) for name, tensor in found.items())
    rate = run.job.strategy.learning_rate
    run.saver.close()
    run.engine.end()
    return (rate.head, rate.backbone), same
