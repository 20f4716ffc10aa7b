"""What becomes of checkpoints once a run has succeeded."""

import json

import pytest

from tests.trainer.complete import complete
from tests.trainer.interrupted import Killed, cut_off, events, job_in, run_in
from tests.trainer.test_recipe import finished_before_of
from unfreeze_trainer.agent.finished import clear_finished
from unfreeze_trainer.exports import exporter
from unfreeze_trainer.runs import folder as folders

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def steps(folder):
    found = sorted(int(path.name.removeprefix("step-")) for path in folder.glob("checkpoints/step-*"))
    return [step for step in found if step]  # step-0 keeps trainers of the first release out


def ended(folder, policy, **training):
    run = run_in(folder, checkpoint={"everySteps": 3, "afterSuccess": policy}, **training)
    complete(run)
    return run


def test_they_are_deleted_once_the_report_is_there(tmp_path, monkeypatch):
    seen = []
    write_report = exporter.write_report

    def write(folder, *args):
        seen.append(steps(folder))
        assert (folder / "model").is_dir()
        write_report(folder, *args)
        seen.append(steps(folder))

    monkeypatch.setattr(exporter, "write_report", write)
    ended(tmp_path, "Delete")
    assert len(seen[0]) >= 2
    assert seen[0] == seen[1]
    assert steps(tmp_path) == []
    assert sorted(events(tmp_path, "checkpointsDeleted")[0]["steps"]) == seen[0]
    assert finished_before_of(tmp_path).activity == "Done"


def test_the_best_one_can_stay(tmp_path):
    run = ended(tmp_path, "KeepBest")
    assert steps(tmp_path) == [run.state.best.step]
    assert run.folder.checkpoints.check(run.state.best.step)


def test_all_can_stay(tmp_path):
    ended(tmp_path, "Keep")
    assert len(steps(tmp_path)) >= 2
    assert events(tmp_path, "checkpointsDeleted") == []


def test_a_run_that_fails_keeps_them(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("the export gives other logits")

    run = run_in(tmp_path, checkpoint={"everySteps": 3, "afterSuccess": "Delete"})
    monkeypatch.setattr(run.task, "verify_export", fail)
    with pytest.raises(RuntimeError, match="other logits"):
        complete(run)
    assert len(steps(tmp_path)) >= 2
    assert not (tmp_path / "report.json").exists()


def test_broken_and_foreign_ones_stay(tmp_path):
    cut_off(tmp_path, 5)
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "broken-2").mkdir()
    for step, manifest in ((1, None), (2, "{"), (3, json.dumps({"format": 99}))):
        (checkpoints / f"step-{step}").mkdir()
        if manifest:
            (checkpoints / f"step-{step}" / "manifest.json").write_text(manifest)
    foreign = json.loads((checkpoints / "step-4" / "manifest.json").read_text()) | {"fingerprint": "2-another"}
    (checkpoints / "step-2" / "manifest.json").write_text(json.dumps(foreign))
    ended(tmp_path, "Delete")
    assert steps(tmp_path) == [1, 2, 3]
    assert (checkpoints / "broken-2").is_dir()


def test_a_run_of_an_earlier_version_keeps_its_own(tmp_path):
    """On every later start too; whatever the job says by default now."""
    cut_off(tmp_path, 3)
    (tmp_path / "recipe.json").unlink()
    for manifest in tmp_path.glob("checkpoints/*/manifest.json"):
        earlier = {"fingerprint": job_in(tmp_path).fingerprints()[-1]}
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | earlier))
    cut_off(tmp_path, 7, checkpoint={"everySteps": 3, "afterSuccess": "Delete"})
    ended(tmp_path, "Delete")
    assert len(steps(tmp_path)) >= 2


def test_what_a_kill_left_is_deleted_by_the_next_start(tmp_path, monkeypatch):
    def die(*_, **__):
        raise Killed

    monkeypatch.setattr(folders, "clear", die)
    with pytest.raises(Killed):
        ended(tmp_path, "Delete")
    assert len(steps(tmp_path)) >= 2
    clear_finished(job_in(tmp_path, checkpoint={"everySteps": 3, "afterSuccess": "Delete"}))
    assert steps(tmp_path) == []
