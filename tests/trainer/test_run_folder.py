"""A run folder opens without a model, for one that writes and for others that read."""

import json

import pytest
import torch

from tests.trainer.jobs import make_job
from unfreeze_trainer.runs.checkpoints import Snapshot
from unfreeze_trainer.runs.folder import RunFolder
from unfreeze_trainer.runs.generation import Superseded
from unfreeze_trainer.runs.recovery import Found
from unfreeze_trainer.runs.saving import write
from unfreeze_trainer.runs.state import RunState

PINS = {"base": {"files": {"w": "1"}}, "data": {}}


def job_in(folder, **training):
    place = {"destination": f"file://{folder}"}
    return make_job("/none", "/none.csv", strategy={"type": "FullFineTuning"}, output=place, training=training)


def open_folder(folder, *, writes: bool = True, **training) -> RunFolder:
    return RunFolder.open(job_in(folder, **training), writes=writes, pins=lambda: PINS)


def save(folder: RunFolder, step: int) -> None:
    write(folder.checkpoints, Snapshot(RunState(step=step), {"w": torch.ones(2)}, {}), folder.generation)


def test_one_that_writes_finds_what_there_is_and_keeps_the_recipe(tmp_path):
    folder = open_folder(tmp_path / "run")
    assert folder.find() == Found()
    folder.keep_recipe()
    assert json.loads((tmp_path / "run/recipe.json").read_text())["fingerprint"] == folder.identity.fingerprint
    save(folder, 3)
    folder.events.add("stopped", step=3)
    later = open_folder(tmp_path / "run")
    assert later.generation.number == 2
    assert later.find().checkpoint.step == 3
    assert '"stopped"' in (tmp_path / "run/events.jsonl").read_text()
    with pytest.raises(Superseded):
        folder.events.add("stopped", step=3)


def test_one_that_reads_changes_nothing(tmp_path):
    folder = open_folder(tmp_path / "run", writes=False)
    assert folder.generation is None
    assert folder.find() == Found()
    folder.keep_recipe()
    folder.events.add("stopped", step=3)
    assert folder.clear(best=3) == []
    assert not (tmp_path / "run").exists()


def test_the_right_to_write_is_taken_before_the_hashes(tmp_path):
    """They may take long: meanwhile an earlier start must not write."""
    earlier, seen = open_folder(tmp_path / "run"), []

    def pins():
        with pytest.raises(Superseded):
            earlier.generation.check()
        seen.append(True)
        return PINS

    RunFolder.open(job_in(tmp_path / "run"), writes=True, pins=pins)
    assert seen == [True]


@pytest.mark.parametrize(("policy", "left"), [("Delete", [0]), ("KeepBest", [2]), ("Keep", [3, 2])])
def test_what_becomes_of_checkpoints_is_what_the_job_says(tmp_path, policy, left):
    folder = open_folder(tmp_path / "run", checkpoint={"afterSuccess": policy})
    for step in (2, 3):
        save(folder, step)
    gone = folder.clear(best=2)
    assert sorted({*gone, *(step for step in left if step)}) == [2, 3]
    found = sorted((int(path.name.removeprefix("step-")) for path in folder.checkpoints.folder.iterdir()), reverse=True)
    assert found == left
