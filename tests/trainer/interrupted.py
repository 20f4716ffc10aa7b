"""Runs of one worker that are cut off, and what is left of them: for the tests of checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.trainer.engine_group import forget_accelerate
from tests.trainer.jobs import make_job
from tests.trainer.mlp import MLPTask
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.runs.checkpoints import Checkpoints, Identity
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.run import Run

STRATEGY = {"type": "GradualUnfreezing", "learningRate": {"head": 1e-2, "backbone": 5e-3}}
TRAINING = {
    "epochs": 8,
    "batchSize": 5,
    "checkpoint": {"everySteps": 3},
    "evaluate": {"everySteps": 4},
    "metric": "loss",
}


class Killed(BaseException):
    """What a SIGKILL looks like to a test that has to go on."""


def job_in(folder: Path, strategy=STRATEGY, **training):
    place = {"destination": f"file://{folder}"}
    return make_job("/none", "/none.csv", strategy=strategy, training=TRAINING | training, output=place)


def run_in(folder: Path, task=None, link=None, **training) -> Run:
    forget_accelerate()
    job = job_in(folder, **training)
    task = task or MLPTask(norm=True)
    return Run(job, task, task.build_model(), open_engine(job), link)


def finished(folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    report = json.loads((folder / "report.json").read_text())
    checkpoints = Checkpoints(folder, Identity("", {}))
    files = checkpoints.load(checkpoints.steps()[0])
    moments = {f"{name}.{key}": value for name, entry in files.moments.items() for key, value in entry.items()}
    return files.weights | moments, report


def events(folder: Path, kind: str) -> list[dict]:
    found = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event for event in found if event["event"] == kind]


def kill_at(run: Run, step: int) -> None:
    after = run.work.after_step

    def die(done: int) -> None:
        if done == step:
            raise Killed
        after(done)

    run.work.after_step = die


def cut_off(folder: Path, step: int, **options) -> Run:
    """Train until a step is done; what was written by then is complete."""
    run = run_in(folder, **options)
    kill_at(run, step)
    with pytest.raises(Killed):
        train(run)
    run.saver.close()
    return run


def assert_as_undisturbed(folder: Path, undisturbed) -> None:
    tensors, report = finished(folder)
    assert tensors.keys() == undisturbed[0].keys()
    assert [name for name in tensors if not torch.equal(tensors[name], undisturbed[0][name])] == []
    assert report["results"] == undisturbed[1]["results"]
    assert [phase["steps"] for phase in report["phases"]] == [phase["steps"] for phase in undisturbed[1]["phases"]]


# Checkpoints are written at 3 and 4, evaluations are at 4: step-4 is damaged.


def flip_a_bit(folder: Path) -> None:
    file = folder / "moments.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 16
    file.write_bytes(data)
