"""Runs that are cut off anywhere and go on: bit for bit what they would have been."""

from __future__ import annotations

import gc
import json
import random
from pathlib import Path

import pytest
import torch

from tests.trainer.engine_group import forget_accelerate
from tests.trainer.jobs import make_job
from tests.trainer.mlp import MLPTask
from unfreeze_trainer.checkpoints import Checkpoints
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.link import Link
from unfreeze_trainer.run import Run
from unfreeze_trainer.worker import train

pytestmark = [pytest.mark.slow]

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


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # as a worker does: each phase change collects
    yield
    gc.unfreeze()


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
    last = max(Checkpoints(folder, None, keep=1).steps())  # type: ignore[arg-type]
    files = Checkpoints(folder, None, keep=1).load(last)  # type: ignore[arg-type]
    moments = {f"{name}.{key}": value for name, entry in files.moments.items() for key, value in entry.items()}
    return files.weights | moments, report


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    train(run_in(folder))
    return finished(folder)


def kill_at(run: Run, step: int) -> None:
    after = run.after_step

    def die(done: int) -> None:
        if done == step:
            raise Killed
        after(done)

    run.after_step = die


@pytest.mark.parametrize("seed", range(4))
def test_killed_runs_end_bit_for_bit_alike(tmp_path, undisturbed, seed):
    moments = sorted(random.Random(seed).sample(range(1, 40), 3))
    for moment in moments:
        run = run_in(tmp_path)
        kill_at(run, moment)
        with pytest.raises(Killed):
            train(run)
    train(run_in(tmp_path))
    tensors, report = finished(tmp_path)
    assert tensors.keys() == undisturbed[0].keys()
    assert [name for name in tensors if not torch.equal(tensors[name], undisturbed[0][name])] == []
    assert report["results"] == undisturbed[1]["results"]
    assert [phase["steps"] for phase in report["phases"]] == [phase["steps"] for phase in undisturbed[1]["phases"]]


@pytest.mark.parametrize("moment", [0, 1, 2])
def test_killed_while_a_checkpoint_is_written(tmp_path, undisturbed, monkeypatch, moment):
    run = run_in(tmp_path)
    real, calls = Path.replace, []

    def die(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == 3:
            if moment == 0:
                raise Killed  # written, not renamed
            if moment == 1:
                (path / "weights.safetensors").write_bytes(b"half")
                real(path, target)
                raise Killed  # renamed before its blocks reached the disk
            (path / "manifest.json").unlink()
            real(path, target)
            raise Killed
        return real(path, target)

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(Killed):
        train(run)
    monkeypatch.undo()
    again = run_in(tmp_path)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    broken = [event["problem"] for event in events if event["event"] == "brokenCheckpoint"]
    assert bool(broken) == (moment > 0), "a broken checkpoint is said loudly"
    assert again.state.step == 4
    train(again)
    assert not list((tmp_path / "checkpoints").glob(".*"))
    tensors, report = finished(tmp_path)
    assert [name for name in tensors if not torch.equal(tensors[name], undisturbed[0][name])] == []
    assert report["results"] == undisturbed[1]["results"]


def test_stop_writes_a_checkpoint_of_this_step(tmp_path, undisturbed):
    from unfreeze_trainer import progress, worker

    link = Link(tmp_path)
    run = run_in(tmp_path / "run", link=link)
    kill_at(run, 99)
    run.meter._interval = 1
    after = run.after_step

    def stop(done: int) -> None:
        run.meter._interval = 1
        if done == 13:
            link.request_stop()
        after(done)

    run.after_step = stop
    with pytest.raises(progress.StopRequested):
        worker.train(run)
    run.save()
    assert run.checkpoint.step == 14
    (tmp_path / "stop").unlink()
    train(run_in(tmp_path / "run"))
    assert finished(tmp_path / "run")[1]["results"] == undisturbed[1]["results"]


def test_stop_during_an_evaluation_repeats_it(tmp_path, undisturbed):
    from unfreeze_trainer.progress import StopRequested

    run = run_in(tmp_path)

    def stop() -> None:
        raise StopRequested

    real = run.evaluate

    def evaluate(split: str) -> dict[str, float]:
        if run.state.step == 12:
            raise StopRequested
        return real(split)

    run.evaluate = evaluate
    with pytest.raises(StopRequested):
        train(run)
    run.save()
    train(run_in(tmp_path))
    tensors, report = finished(tmp_path)
    assert [name for name in tensors if not torch.equal(tensors[name], undisturbed[0][name])] == []
    assert report["results"] == undisturbed[1]["results"]


def test_a_folder_of_another_job_is_refused(tmp_path):
    run = run_in(tmp_path)
    kill_at(run, 7)
    with pytest.raises(Killed):
        train(run)
    with pytest.raises(JobError, match="belongs to another job") as caught:
        run_in(tmp_path, seed=1)
    assert str(tmp_path) in caught.value.message
    task = MLPTask(norm=True)
    task.pins = {**task.pins, "data": {"train": "changed"}}
    with pytest.raises(JobError, match="data changed since"):
        run_in(tmp_path, task=task)


def test_keeps_the_newest_and_the_best(tmp_path):
    run = run_in(tmp_path)
    train(run)
    steps = run.checkpoints.steps()
    newest = [step for step in steps if step != run.state.best.step]
    assert run.state.best.step in steps
    assert len(newest) <= 2
    assert steps[0] == run.state.step


def test_frozen_weights_are_not_in_a_checkpoint(tmp_path):
    run = run_in(tmp_path)
    kill_at(run, 4)
    with pytest.raises(Killed):
        train(run)
    weights = run.checkpoints.load(3).weights
    assert {name for name in weights if "norm" not in name} == {"head.weight", "head.bias"}


def test_the_best_weights_of_an_early_phase_leave_no_trace_of_later_ones(tmp_path):
    task = MLPTask(dropout=0.0)
    run = run_in(tmp_path, task=task)
    real = run.evaluate

    def evaluate(split: str) -> dict[str, float]:
        metrics = real(split)
        return metrics | {"loss": 0.001} if split == "validation" and run.state.step == 4 else metrics

    run.evaluate = evaluate
    train(run)
    base = task.build_model().module.state_dict()
    exported = torch.load(tmp_path / "model" / "weights.pt")
    moved = {name for name in base if not torch.equal(base[name], exported[name])}
    assert moved == {"head.weight", "head.bias"}
    assert json.loads((tmp_path / "report.json").read_text())["bestStep"] == 4


def test_early_stopping_ends_the_phase_and_the_plan_goes_on(tmp_path):
    run = run_in(tmp_path, earlyStopping={"patience": 1, "minDelta": 10.0}, evaluate={"everySteps": 2})
    train(run)
    second_evaluation = [(phase.first_step // 2 + 2) * 2 - phase.first_step for phase in run.phases]
    assert [phase.steps for phase in run.state.phases] == second_evaluation
    assert run.state.step == run.phases[-1].first_step + second_evaluation[-1]


PLATEAU = {
    "type": "GradualUnfreezing",
    "gradualUnfreezing": {"blocksPerPhase": 2, "stepsPerPhase": 12, "untilPlateau": {"patience": 1, "minDelta": 10.0}},
}


def plateau_run(folder: Path) -> Run:
    forget_accelerate()
    training = {"evaluate": {"everySteps": 4}, "checkpoint": {"everySteps": 1, "keep": 100}}
    job = job_in(folder, strategy=PLATEAU, **training)
    task = MLPTask(norm=True)
    return Run(job, task, task.build_model(), open_engine(job), None)


def test_a_plateau_ends_every_phase_but_the_last(tmp_path):
    run = plateau_run(tmp_path)
    train(run)
    *others, last = run.phases
    assert [phase.steps for phase in run.state.phases] == [*([8] * len(others)), last.steps]
    assert all(phase.steps == 12 for phase in others)
    assert run.state.step == run.total_steps


def test_a_plateau_is_found_again_after_a_stop(tmp_path):
    run = plateau_run(tmp_path)
    kill_at(run, 6)  # one evaluation has been the best of the phase, the next one ends it
    with pytest.raises(Killed):
        train(run)
    again = plateau_run(tmp_path)
    assert (again.state.step, again.state.phase_best is None) == (6, False)
    train(again)
    assert again.state.phases[0].steps == 8


def test_another_world_size_goes_on_with_the_same_samples(tmp_path):
    """One rank's samples are those of three ranks together, from any step on."""
    from unfreeze_trainer.feed import Feed

    def samples(rank: int, world: int, first: int, accumulate: int) -> list[list[float]]:
        feed = Feed(MLPTask(), seed=3, batch_size=5, accumulate=accumulate, rank=rank, world_size=world)
        steps = []
        for _, micros in feed.steps(first, 17):
            rows = [row for micro in micros for row in micro.tensors["x"][: micro.samples, 0].tolist()]
            steps.append(sorted(rows))
        return steps

    alone = samples(0, 1, 0, 1)
    parts = [samples(rank, 3, 6, 2) for rank in range(3)]
    together = [sorted(row for part in step for row in part) for step in zip(*parts, strict=True)]
    assert together == alone[6:]
