"""What two ranks do for `test_features`: the same job with and without the block cache, whole and resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.trainer.engine_group import ENGINES, open_run
from tests.trainer.jobs import make_job
from unfreeze_api.contracts.resolved import ResolvedCache, ResolvedJob
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.loop import train

GRADUAL = {"type": "GradualUnfreezing", "gradualUnfreezing": {"epochsPerPhase": 2}}


def job_of(engine: str, folder: Path, features: str, batch: int = 7) -> ResolvedJob:
    """Return a job of four phases of two epochs, of a model with dropout, in batches of similar length."""
    job = make_job(
        folder / "bert",
        folder / "texts.csv",
        strategy={**GRADUAL, "learningRate": {"head": 1e-2}},
        training={"epochs": 8, "batchSize": batch, "groupByLength": True, "checkpoint": {"everySteps": 5, "keep": 50}},
        distribution={"numNodes": 2, **ENGINES[engine]},
        output={"destination": f"file://{folder}/{engine}-{features}"},
    )
    return job.model_copy(update={"semantics": job.semantics.model_copy(update={"features": features})})


def trained(engine: str, folder: Path, features: str, left: int | None = None):
    """Train a job; return the weights on rank 0, what the cache has done, and cuts by phase.

    With `left` what a run has after so many steps is all that is there, and it resumes.
    """
    return _train(job_of(engine, folder, features), left)


def shared(engine: str, folder: Path, features: str, kept: tuple[Path, int] | None = None):
    """Train a job in larger batches; `kept` is a cache that outlives it, and its turn, which has a run folder of its own."""
    job = job_of(engine, folder, features, 20)
    if kept:
        cache, turn = kept
        place = ResolvedCache(source=f"file://{cache}", path=str(cache), max_bytes=2**30)
        output = job.output.model_copy(update={"path": f"{cache}-{turn}"})
        job = job.model_copy(update={"cache": place, "output": output})
    return _train(job)


def _train(job: ResolvedJob, left: int | None = None):
    run = open_run(job, open_task(job))
    if left is not None:
        assert run.state.step == left
    train(run)
    run.saver.wait()
    weights = {name: tensor.clone() for name, tensor in run.engine.weights(run.engine.shapes).items()}
    cuts = {phase: cut.path for phase, cut in run.features.cuts.items()}
    run.engine.barrier()
    run.saver.close()
    run.engine.end()
    return weights, run.features.saved, cuts


def forget_after(step: int, run: Path) -> None:
    """Leave of a run folder what it was after a step."""
    for checkpoint in (run / "checkpoints").iterdir():
        if checkpoint.name != f"step-{step}":
            shutil.rmtree(checkpoint)
