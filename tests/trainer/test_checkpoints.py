"""One worker that is stopped or loses checkpoints, and goes on: bit for bit what it would have been."""

from __future__ import annotations

import errno
import gc
import json
import math
import re
import threading
from pathlib import Path

import pytest
import torch

from tests.trainer.engine_group import forget_accelerate
from tests.trainer.jobs import make_job
from tests.trainer.mlp import MLPTask
from unfreeze_trainer.checkpoints import Checkpoints, Identity
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.generation import Superseded
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
    checkpoints = Checkpoints(folder, Identity("", {}))
    files = checkpoints.load(checkpoints.steps()[0])
    moments = {f"{name}.{key}": value for name, entry in files.moments.items() for key, value in entry.items()}
    return files.weights | moments, report


def events(folder: Path, kind: str) -> list[dict]:
    found = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event for event in found if event["event"] == kind]


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


def cut_short(folder: Path) -> None:
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


def flip_a_bit(folder: Path) -> None:
    file = folder / "moments.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 16
    file.write_bytes(data)


def write_for_another_step(folder: Path) -> None:
    other = folder.with_name("step-3")
    for file in other.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())


def write_for_another_job(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": "other"}))


DAMAGE = {
    "cut short": (cut_short, r"step-4: weights.safetensors has \d+ bytes of \d+"),
    "one bit": (flip_a_bit, "step-4: moments.safetensors is not what was written: its SHA-256 differs"),
    "a file is gone": (lambda folder: (folder / "state.json").unlink(), "state.json cannot be read .No such file"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json cannot be read .No such file"),
    "half a manifest": (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is no manifest"),
    "an odd manifest": (
        lambda folder: (folder / "manifest.json").write_text('{"format": 1, "files": {}}'),
        "manifest.json is no manifest",
    ),
    "another step's": (write_for_another_step, "step-4: its manifest is that of step 3"),
    "another job's": (write_for_another_job, "step-4: .* belongs to another job"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_checkpoint_is_recognised_and_the_one_before_is_used(tmp_path, damage):
    harm, words = DAMAGE[damage]
    cut_off(tmp_path, 4)
    harm(tmp_path / "checkpoints" / "step-4")
    again = run_in(tmp_path)
    assert again.state.step == 3
    assert (tmp_path / "checkpoints" / "broken-4").is_dir()
    told = again.state.recovery
    assert told.step == 3
    assert re.search(words, told.message)
    assert told.message.endswith("the training went on from step 3")
    (event,) = events(tmp_path, "brokenCheckpoint")
    assert (event["step"], event["message"]) == (3, told.message)


def test_the_end_is_the_same_after_a_step_back_and_the_progress_tells_of_it(tmp_path, undisturbed):
    cut_off(tmp_path / "run", 4)
    flip_a_bit(tmp_path / "run" / "checkpoints" / "step-4")
    link = Link(tmp_path)
    train(run_in(tmp_path / "run", link=link))
    assert_as_undisturbed(tmp_path / "run", undisturbed)
    assert link.read_progress().recovery.step == 3


def test_a_run_without_any_whole_checkpoint_starts_over_and_says_so(tmp_path, undisturbed):
    cut_off(tmp_path, 4)
    for step in (3, 4):
        flip_a_bit(tmp_path / "checkpoints" / f"step-{step}")
    again = run_in(tmp_path)
    assert (again.state.step, again.state.recovery.step) == (0, 0)
    assert again.state.recovery.message.endswith("the training started over from the beginning")
    train(again)
    assert_as_undisturbed(tmp_path, undisturbed)


def test_what_was_broken_is_told_by_every_later_start(tmp_path):
    cut_off(tmp_path, 4)
    flip_a_bit(tmp_path / "checkpoints" / "step-4")
    told = cut_off(tmp_path, 8).state.recovery
    assert told
    assert run_in(tmp_path).state.recovery == told
    assert len(events(tmp_path, "brokenCheckpoint")) == 1


def test_a_checkpoint_of_another_version_is_no_broken_one(tmp_path):
    cut_off(tmp_path, 4)
    for step in (3, 4):
        manifest = tmp_path / "checkpoints" / f"step-{step}" / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 2}))
    with pytest.raises(JobError, match="step-4 has format 2, and this version of Unfreeze reads format 1"):
        run_in(tmp_path)
    assert (tmp_path / "checkpoints" / "step-4").is_dir()


@pytest.mark.parametrize(("newest", "best"), [(9, None), (15, 15)])
def test_the_best_checkpoint_is_broken_and_a_later_one_whole(tmp_path, newest, best):
    """Evaluations are at 4, 8, 12 and at the ends of phases, 5, 10, 15."""

    def run_with_a_good_start() -> Run:
        run = run_in(tmp_path)
        real = run.evaluate

        def evaluate(split: str) -> dict[str, float]:
            metrics = real(split)
            return metrics | {"loss": 0.001} if run.state.step == 4 else metrics

        run.evaluate = evaluate
        return run

    run = run_with_a_good_start()
    kill_at(run, newest)
    with pytest.raises(Killed):
        train(run)
    run.saver.close()
    assert run.state.best.step == 4
    flip_a_bit(tmp_path / "checkpoints" / "step-4")
    again = run_in(tmp_path)
    assert (again.state.step, again.state.best and again.state.best.step) == (newest, best)
    assert "step-4: moments.safetensors" in again.state.recovery.message
    assert again.state.recovery.message.endswith(f"(the best so far): the training went on from step {newest}")
    train(again)
    assert json.loads((tmp_path / "report.json").read_text())["bestStep"] > newest


def test_a_training_that_diverged_can_be_gone_on_with(tmp_path):
    run = run_in(tmp_path)
    run.evaluate = lambda _: {"loss": math.nan}
    kill_at(run, 9)
    with pytest.raises(Killed):
        train(run)
    run.saver.close()
    again = run_in(tmp_path)
    assert again.state.step == 9
    assert math.isnan(again.state.best.value)


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    run = run_in(tmp_path)
    goes_on, done, seen = threading.Event(), [], {}
    real, after = Checkpoints.write, run.after_step

    def slow(*arguments, **options):
        assert goes_on.wait(60)
        return real(*arguments, **options)

    def after_step(step: int) -> None:
        after(step)
        done.append(step)
        if step == 2:
            seen["newest"], seen["steps"] = run.saver.newest, run.checkpoints.steps()
            goes_on.set()

    monkeypatch.setattr(Checkpoints, "write", slow)
    run.after_step = after_step
    train(run)
    assert seen == {"newest": None, "steps": []}, "step 3 was over before its checkpoint"
    assert done == list(range(run.total_steps))
    assert run.saver.newest.step == run.total_steps


def test_a_snapshot_is_what_the_weights_were_when_it_was_taken(tmp_path, monkeypatch, undisturbed):
    """The thread writes late, when a further step has changed weights and moments."""
    late, run = threading.Event(), run_in(tmp_path)
    real, after = Checkpoints.write, run.after_step

    def slow(*arguments, **options):
        assert late.wait(60)
        return real(*arguments, **options)

    def after_step(step: int) -> None:
        if step == 3:
            late.set()
            run.saver.close()
            raise Killed
        after(step)

    monkeypatch.setattr(Checkpoints, "write", slow)
    run.after_step = after_step
    with pytest.raises(Killed):
        train(run)
    monkeypatch.undo()
    again = run_in(tmp_path)
    assert again.state.step == 3
    train(again)
    assert_as_undisturbed(tmp_path, undisturbed)


def test_a_checkpoint_that_cannot_be_written_ends_the_worker(tmp_path, monkeypatch, undisturbed):
    run = run_in(tmp_path)
    real = Checkpoints.write

    def full(checkpoints, snapshot, *arguments, **options):
        if snapshot.state.step == 8:
            raise OSError(errno.ENOSPC, "No space left on device", "step-8")
        return real(checkpoints, snapshot, *arguments, **options)

    monkeypatch.setattr(Checkpoints, "write", full)
    with pytest.raises(OSError, match="No space left on device: 'step-8'"):
        train(run)
    monkeypatch.undo()
    assert 8 < run.state.step < 12, "at the next meeting of the ranks, not at the end"
    train(run_in(tmp_path))
    assert_as_undisturbed(tmp_path, undisturbed)


@pytest.mark.parametrize("step", [13, 39])
def test_a_gang_that_comes_back_late_leaves_the_run_of_its_successor_alone(tmp_path, undisturbed, step):
    """It stood still after a step, the last one with its export before it, until another gang was done."""
    late = run_in(tmp_path)
    after, kept = late.after_step, {}

    def sleep(done: int) -> None:
        after(done)
        if done == step:
            train(run_in(tmp_path))
            kept.update({path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()})

    late.after_step = sleep
    with pytest.raises(Superseded, match=r"another start of this job writes to .* .generation 2; this one was 1."):
        train(late)
    late.saver.close()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == kept
    assert_as_undisturbed(tmp_path, undisturbed)


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
    run.saver.wait()
    assert run.saver.newest.step == 14
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
    run.saver.wait()
    train(run_in(tmp_path))
    assert_as_undisturbed(tmp_path, undisturbed)


def test_a_folder_of_another_job_is_refused(tmp_path):
    cut_off(tmp_path, 7)
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
    run = cut_off(tmp_path, 4)
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
    run.saver.close()
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
