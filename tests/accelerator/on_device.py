"""What ranks do for `test_parity`, on whatever device they find."""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path

import torch

from tests.trainer import engine_group
from tests.trainer.engine_group import forget_accelerate
from tests.trainer.interrupted import STRATEGY, TRAINING, Killed
from tests.trainer.jobs import make_job
from tests.trainer.mlp import MLPTask
from tests.trainer.ranks import Ranks
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.run import Run


def exact() -> None:
    """Have matrices multiplied in float32, which TensorFloat-32 is not."""
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.fp32_precision = "ieee"


def run_case(case: str, engine: str, folder: Path):
    """Return what `engine_group` says of a case, and the type of the device that it ran on."""
    exact()
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    return engine_group.run_case(case, engine, folder) | {"device": kind}


def waits_case(engine: str, folder: Path):
    """Return what steps wait for the device for, by torch's own warnings, between two meetings of the ranks."""
    job = engine_group.job_of("full", engine, folder / "waits", training={"epochs": 40, "precision": "BFloat16"})
    run = engine_group.open_run(job, MLPTask(dropout=0.0))
    after = run.work.after_step

    def after_step(step: int) -> None:
        run.meter._interval = 10**6  # the ranks do not meet
        after(step)
        # The first steps look at the weights and allocate.
        if torch.cuda.is_available() and step in (40, 60):
            torch.cuda.set_sync_debug_mode("warn" if step == 40 else "default")

    run.work.after_step = after_step
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(run)
    waits = [str(each.message) for each in caught if "called a synchronizing" in str(each.message)]
    run.engine.end()
    return waits


PART = 9
"""Steps of a part of a run; a checkpoint is written every third."""


def part_of_a_run(folder: Path, engine: str, device: str):
    """Go on with a run for a part of it in a process of its own, on the CPU or, where there is one, the accelerator.

    Returns what the rank says: weights, position and counters, and the training samples that it took in their order.
    """
    rank = Ranks(folder.parent, world=1)
    try:
        return rank.call(_part, folder, engine, device)[0]
    finally:
        rank.kill()


def _part(folder: Path, engine: str, device: str):
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        _deepspeed_on_the_cpu()
    exact()
    forget_accelerate()
    place = {"destination": f"file://{folder}"}
    distribution = engine_group.ENGINES[engine]
    training = TRAINING | {"precision": "Float32"}
    job = make_job("/none", "/none.csv", strategy=STRATEGY, training=training, output=place, distribution=distribution)
    task = Watched(dropout=0.0)
    run = Run(job, task, task.build_model(), open_engine(job), None)
    task.taken.clear()  # what engines try before they begin depends on where they lie
    first, after = run.state.step, run.work.after_step

    def after_step(step: int) -> None:
        after(step)
        if step + 1 == first + PART:
            raise Killed

    run.work.after_step = after_step
    with contextlib.suppress(Killed):
        train(run)
    run.saver.close()
    state = run.state
    seen = {
        "weights": run.engine.weights(run.engine.shapes),
        "state": state.model_dump(include=_COUNTERS) | {"phases": [(each.name, each.steps) for each in state.phases]},
        "samples": task.taken,
    }
    run.engine.end()
    return seen


def _deepspeed_on_the_cpu() -> None:
    """Tell DeepSpeed, which has looked for accelerators when it was imported, that there are none."""
    from deepspeed.accelerator import set_accelerator
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    set_accelerator(CPU_Accelerator())


_COUNTERS = {
    "step",
    "phase_index",
    "phase_steps",
    "phase_ended",
    "evaluated_step",
    "bad_evaluations",
    "skipped_steps",
    "trainable_hash",
}


class Watched(MLPTask):
    """Remembers which training samples were asked for."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.taken = []

    def batches(self, split, batches, **options):
        def watched():
            for indices in batches:
                if split == "train":
                    self.taken.append(list(indices))
                yield indices

        return super().batches(split, watched(), **options)
