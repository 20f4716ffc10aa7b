"""One worker that is stopped and goes on, bit for bit as it would have been; what its checkpoints hold."""

from __future__ import annotations

import errno
import json
import math
import threading

import pytest
import torch

from tests.trainer.complete import complete
from tests.trainer.interrupted import (
    Killed,
    assert_as_undisturbed,
    cut_off,
    finished,
    kill_at,
    run_in,
)
from tests.trainer.mlp import MLPTask
from unfreeze_trainer.link import Link
from unfreeze_trainer.runs.checkpoints import Checkpoints
from unfreeze_trainer.runs.generation import Superseded
from unfreeze_trainer.training.evaluator import Measured

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def test_a_training_that_diverged_can_be_gone_on_with(tmp_path):
    run = run_in(tmp_path)
    run.evaluator.measure = lambda _: Measured({"loss": math.nan})
    kill_at(run, 9)
    with pytest.raises(Killed):
        complete(run)
    run.saver.close()
    again = run_in(tmp_path)
    assert again.state.step == 9
    assert math.isnan(again.state.best.value)


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    run = run_in(tmp_path)
    goes_on, done, seen = threading.Event(), [], {}
    real, after = Checkpoints.write, run.work.after_step

    def slow(*arguments, **options):
        assert goes_on.wait(60)
        return real(*arguments, **options)

    def after_step(step: int) -> None:
        after(step)
        done.append(step)
        if step == 2:
            seen["newest"], seen["steps"] = run.saver.newest, run.folder.checkpoints.steps()
            goes_on.set()

    monkeypatch.setattr(Checkpoints, "write", slow)
    run.work.after_step = after_step
    complete(run)
    assert seen == {"newest": None, "steps": []}, "step 3 was over before its checkpoint"
    assert done == list(range(run.plan.total_steps))
    assert run.saver.newest.step == run.plan.total_steps


def test_a_snapshot_is_what_the_weights_were_when_it_was_taken(tmp_path, monkeypatch, undisturbed):
    """The thread writes late, when a further step has changed weights and moments."""
    late, run = threading.Event(), run_in(tmp_path)
    real, after = Checkpoints.write, run.work.after_step

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
    run.work.after_step = after_step
    with pytest.raises(Killed):
        complete(run)
    monkeypatch.undo()
    again = run_in(tmp_path)
    assert again.state.step == 3
    complete(again)
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
        complete(run)
    monkeypatch.undo()
    assert 8 < run.state.step < 12, "at the next meeting of the ranks, not at the end"
    complete(run_in(tmp_path))
    assert_as_undisturbed(tmp_path, undisturbed)


@pytest.mark.parametrize("step", [13, 39])
def test_a_gang_that_comes_back_late_leaves_the_run_of_its_successor_alone(tmp_path, undisturbed, step):
    """It stood still after a step, the last one with its export before it, until another gang was done."""
    late = run_in(tmp_path)
    after, kept = late.work.after_step, {}

    def sleep(done: int) -> None:
        after(done)
        if done == step:
            complete(run_in(tmp_path))
            kept.update({path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()})

    late.work.after_step = sleep
    with pytest.raises(Superseded, match=r"another start of this job writes to .* .generation 2; this one was 1."):
        complete(late)
    late.saver.close()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == kept
    assert_as_undisturbed(tmp_path, undisturbed)


def test_stop_writes_a_checkpoint_of_this_step(tmp_path, undisturbed):
    from unfreeze_trainer.training.meter import StopRequested

    link = Link(tmp_path)
    run = run_in(tmp_path / "run", link=link)
    kill_at(run, 99)
    run.meter._interval = 1
    after = run.work.after_step

    def stop(done: int) -> None:
        run.meter._interval = 1
        if done == 13:
            link.request_stop()
        after(done)

    run.work.after_step = stop
    with pytest.raises(StopRequested):
        complete(run)
    run.milestones.save()
    run.saver.wait()
    assert run.saver.newest.step == 14
    (tmp_path / "stop").unlink()
    complete(run_in(tmp_path / "run"))
    assert finished(tmp_path / "run")[1]["results"] == undisturbed[1]["results"]


def test_stop_during_an_evaluation_repeats_it(tmp_path, undisturbed):
    from unfreeze_trainer.training.meter import StopRequested

    run = run_in(tmp_path)

    real = run.evaluator.measure

    def measure(split: str) -> Measured:
        if run.state.step == 12:
            raise StopRequested
        return real(split)

    run.evaluator.measure = measure
    with pytest.raises(StopRequested):
        complete(run)
    run.milestones.save()
    run.saver.wait()
    complete(run_in(tmp_path))
    assert_as_undisturbed(tmp_path, undisturbed)


def test_keeps_the_newest_and_the_best(tmp_path):
    run = run_in(tmp_path)
    complete(run)
    steps = run.folder.checkpoints.steps()
    newest = [step for step in steps if step != run.state.best.step]
    assert run.state.best.step in steps
    assert len(newest) <= 2
    assert steps[0] == run.state.step


def test_frozen_weights_are_not_in_a_checkpoint(tmp_path):
    run = cut_off(tmp_path, 4)
    weights = run.folder.checkpoints.load(3).weights
    assert {name for name in weights if "norm" not in name} == {"head.weight", "head.bias"}


def test_the_best_weights_of_an_early_phase_leave_no_trace_of_later_ones(tmp_path):
    task = MLPTask(dropout=0.0)
    run = run_in(tmp_path, task=task)
    real = run.evaluator.measure

    def measure(split: str) -> Measured:
        good = split == "validation" and run.state.step == 4
        return Measured({"loss": 0.001}) if good else real(split)

    run.evaluator.measure = measure
    complete(run)
    base = task.build_model().module.state_dict()
    exported = torch.load(tmp_path / "model" / "weights.pt")
    moved = {name for name in base if not torch.equal(base[name], exported[name])}
    assert moved == {"head.weight", "head.bias"}
    assert json.loads((tmp_path / "report.json").read_text())["bestStep"] == 4


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
