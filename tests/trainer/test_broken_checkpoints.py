"""Checkpoints that are damaged or foreign: they are recognised, and the run goes on from the one before."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.trainer.complete import complete
from tests.trainer.interrupted import (
    Killed,
    assert_as_undisturbed,
    cut_off,
    events,
    flip_a_bit,
    kill_at,
    run_in,
)
from tests.trainer.mlp import MLPTask
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.link import Link
from unfreeze_trainer.training.evaluator import Measured
from unfreeze_trainer.training.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


# Checkpoints are written at 3 and 4, evaluations are at 4: step-4 is damaged.


def cut_short(folder: Path) -> None:
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


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
    assert told.message.endswith("the training resumed from step 3")
    (event,) = events(tmp_path, "brokenCheckpoint")
    assert (event["step"], event["message"]) == (3, told.message)


def test_the_end_is_the_same_after_a_step_back_and_the_progress_tells_of_it(tmp_path, undisturbed):
    cut_off(tmp_path / "run", 4)
    flip_a_bit(tmp_path / "run" / "checkpoints" / "step-4")
    link = Link(tmp_path)
    complete(run_in(tmp_path / "run", link=link))
    assert_as_undisturbed(tmp_path / "run", undisturbed)
    assert link.read_progress().recovery.step == 3


def test_a_run_without_any_whole_checkpoint_starts_over_and_says_so(tmp_path, undisturbed):
    cut_off(tmp_path, 4)
    for step in (3, 4):
        flip_a_bit(tmp_path / "checkpoints" / f"step-{step}")
    again = run_in(tmp_path)
    assert (again.state.step, again.state.recovery.step) == (0, 0)
    assert again.state.recovery.message.endswith("the training started over from the beginning")
    complete(again)
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
        real = run.evaluator.measure

        def measure(split: str) -> Measured:
            return Measured({"loss": 0.001}) if run.state.step == 4 else real(split)

        run.evaluator.measure = measure
        return run

    run = run_with_a_good_start()
    kill_at(run, newest)
    with pytest.raises(Killed):
        complete(run)
    run.saver.close()
    assert run.state.best.step == 4
    flip_a_bit(tmp_path / "checkpoints" / "step-4")
    again = run_in(tmp_path)
    assert (again.state.step, again.state.best and again.state.best.step) == (newest, best)
    assert "step-4: moments.safetensors" in again.state.recovery.message
    assert again.state.recovery.message.endswith(f"(the best so far): the training resumed from step {newest}")
    complete(again)
    assert json.loads((tmp_path / "report.json").read_text())["bestStep"] > newest


def test_a_folder_of_another_job_is_refused(tmp_path):
    cut_off(tmp_path, 7)
    with pytest.raises(JobError, match="belongs to another job") as caught:
        run_in(tmp_path, seed=1)
    assert str(tmp_path) in caught.value.message
    task = MLPTask(norm=True)
    task.pins = {**task.pins, "data": {"train": "changed"}}
    with pytest.raises(JobError, match="data changed since"):
        run_in(tmp_path, task=task)
