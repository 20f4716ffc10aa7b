"""A run folder has an owner: another job is kept out while that lives, the same one goes on, and links lead nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.trainer.complete import complete
from tests.trainer.interrupted import cut_off, job_in, run_in
from tests.trainer.test_destination import tree
from unfreeze_api.contracts.progress import JOB_UID_ENV
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.runs import ownership
from unfreeze_trainer.runs.generation import GENERATION_ENV, Generation, Superseded, append, pulse, require_no_links
from unfreeze_trainer.runs.ownership import Heart, Owner, generation_of_worker, process_uid, read_owner, take_folder
from unfreeze_trainer.runs.recipe import open_recipe

ME = Owner(uid="1", job="ns/one", fingerprint="a")
TWIN = Owner(uid="2", job="ns/two", fingerprint="a")
OTHER = Owner(uid="3", job="ns/three", fingerprint="b")


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(ownership, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(ownership, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(ownership, "_LOOK_SECONDS", 0.01)


def living(folder, owner=ME) -> Heart:
    return Heart(take_folder(folder, owner))


def refused(folder, owner) -> str:
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(JobError) as raised:
        take_folder(folder, owner)
    assert raised.value.reason == "ForeignRunFolder"
    assert {path.name for path in folder.iterdir()} == before, "nothing was taken"
    return raised.value.message


def test_the_marker_names_the_job(tmp_path):
    take_folder(tmp_path, ME)
    assert json.loads((tmp_path / ".generation-1" / "owner.json").read_text()) == {
        "uid": "1",
        "job": "ns/one",
        "fingerprint": "a",
    }
    assert read_owner(tmp_path) == ME


def test_a_twin_is_kept_out_while_the_owner_lives(tmp_path):
    heart = living(tmp_path)
    told = refused(tmp_path, TWIN)
    assert "belongs to the job ns/one of the same recipe, which has not ended" in told
    heart._generation.check()  # the owner trains on
    heart.stop()
    assert take_folder(tmp_path, TWIN).number == 2
    assert read_owner(tmp_path) == TWIN


def test_another_recipe_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership.time, "sleep", lambda _: pytest.fail("nothing to wait for"))
    heart = living(tmp_path)
    assert "of another recipe" in refused(tmp_path, OTHER)
    heart.stop()


def test_an_owner_that_was_lost_with_its_node_is_followed_by_a_twin(tmp_path):
    take_folder(tmp_path, ME).beat()  # and no more
    assert take_folder(tmp_path, TWIN).number == 2


def test_an_owner_that_ends_while_it_is_watched_is_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, "PATIENCE_SECONDS", 30.0)
    heart, sleep = living(tmp_path), ownership.time.sleep

    def end(seconds):
        heart.stop()
        sleep(seconds)

    monkeypatch.setattr(ownership.time, "sleep", end)
    assert take_folder(tmp_path, TWIN).number == 2


def test_the_same_job_goes_on_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership.time, "sleep", lambda _: pytest.fail("nothing to wait for"))
    late = living(tmp_path)
    for number in (2, 3):
        assert (
            take_folder(tmp_path, ME.model_copy(update={"fingerprint": "as an earlier version says"})).number == number
        )
    with pytest.raises(Superseded):
        late._generation.check()


@pytest.mark.parametrize(("before", "now"), [("", "9"), ("9", ""), ("", "")])
def test_jobs_whose_uid_is_not_known_are_told_apart_by_name(tmp_path, before, now):
    heart = living(tmp_path, ME.model_copy(update={"uid": before}))
    assert take_folder(tmp_path, ME.model_copy(update={"uid": now})).number == 2
    heart.stop()


def test_who_was_superseded_stops_beating_and_takes_no_pulse_away(tmp_path):
    late = living(tmp_path)
    newest = living(tmp_path)
    with pytest.raises(FileNotFoundError):
        late._generation.beat()
    late.stop()
    assert pulse(tmp_path) is not None
    newest.stop()
    assert pulse(tmp_path) is None


def test_a_heart_beats(tmp_path):
    heart, beaten = living(tmp_path), threading.Event()
    first, beat = pulse(tmp_path), heart._generation.beat
    heart._generation.beat = lambda: (beat(), beaten.set())
    assert beaten.wait(30)
    heart.stop()
    assert first is not None


def test_a_killed_run_on_this_machine_is_known_to_be_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership.time, "sleep", lambda _: pytest.fail("nothing to wait for"))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        heart = living(tmp_path, ME.model_copy(update={"uid": process_uid(process.pid)}))
        refused(tmp_path, TWIN)
        process.kill()
    heart._generation.beat()  # its agents are not gone yet
    assert take_folder(tmp_path, TWIN).number == 2
    heart.stop()


def test_a_damaged_marker_is_none(tmp_path):
    take_folder(tmp_path, ME)
    (tmp_path / ".generation-1" / "owner.json").write_text("{")
    assert take_folder(tmp_path, TWIN).number == 2


def test_a_worker_has_the_generation_of_its_agent_and_its_pulse_stays(tmp_path, monkeypatch):
    heart = living(tmp_path)
    monkeypatch.setenv(GENERATION_ENV, "1")
    assert generation_of_worker(tmp_path, TWIN).number == 1
    assert pulse(tmp_path) is not None
    heart.stop()
    monkeypatch.delenv(GENERATION_ENV)
    assert generation_of_worker(tmp_path, TWIN).number == 2
    assert read_owner(tmp_path) == TWIN


def test_a_worker_that_was_started_by_hand_owns_nothing_and_takes_nothing_from_the_living(tmp_path):
    by_hand = Owner(job="ns/hand", fingerprint="a")
    heart = living(tmp_path)
    with pytest.raises(JobError, match="which has not ended"):
        generation_of_worker(tmp_path, by_hand)
    heart.stop()
    assert generation_of_worker(tmp_path, by_hand).number == 2
    assert list((tmp_path / ".generation-2").iterdir()) == []
    assert take_folder(tmp_path, OTHER).number == 3


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_run_that_trains_is_not_ended_by_another_job(tmp_path, monkeypatch):
    """A second job with the same destination, before there is a checkpoint and after."""
    monkeypatch.setenv(JOB_UID_ENV, "7")
    run = run_in(tmp_path)
    job = job_in(tmp_path)
    heart = Heart(run.folder.generation)
    other = job_in(tmp_path, seed=5)
    with pytest.raises(JobError, match="which has not ended") as raised:
        take_folder(tmp_path, Owner.of(other, other.fingerprint(), {JOB_UID_ENV: "8"}))
    assert raised.value.reason == "ForeignRunFolder"
    complete(run)
    heart.stop()
    assert (tmp_path / "report.json").exists()
    assert read_owner(tmp_path) == Owner(uid="7", job="default/job", fingerprint=job.fingerprint())


# Links


NAMES = [
    "model",
    "checkpoints",
    "checkpoints/step-4",
    "checkpoints/step-4/state.json",
    "recipe.json",
    "events.jsonl",
    "ranking.json",
    "rates.json",
    "spent.json",
    "evidence",
    ".generation-1/owner.json",
]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NAMES)
def test_a_link_in_a_run_folder_is_refused_and_not_followed(tmp_path_factory, interrupted_run, name):
    folder, elsewhere = interrupted_run, tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "precious").write_text("precious")
    place = folder / name
    if place.exists():
        place.rename(elsewhere / "moved")
    place.symlink_to(elsewhere / ("moved" if (elsewhere / "moved").exists() else "precious"))
    before = tree(elsewhere)
    with pytest.raises(JobError, match="is a link, and nothing in a run folder is followed") as raised:
        run_in(folder)
    assert raised.value.reason == "ForeignRunFolder"
    assert tree(elsewhere) == before
    place.unlink()
    if (elsewhere / "moved").exists():
        (elsewhere / "moved").rename(place)


@pytest.fixture(scope="module")
def interrupted_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    cut_off(folder, 5)
    assert (folder / "checkpoints" / "step-4" / "state.json").exists()
    return folder


def test_links_that_come_later_are_not_written_through(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    generation = Generation.take(run)
    (elsewhere / "step-1").mkdir(parents=True)
    (elsewhere / "file").write_text("precious")
    (run / "checkpoints").symlink_to(elsewhere)
    (run / "model").symlink_to(elsewhere)
    (run / "events.jsonl").symlink_to(elsewhere / "file")
    before = tree(elsewhere)
    aside = generation.aside("step-1")
    aside.mkdir()
    with pytest.raises(JobError, match="checkpoints is a link"):
        generation.commit(aside, run / "checkpoints" / "step-1")
    with pytest.raises(OSError, match="symbolic link"), append(run / "events.jsonl"):
        pass
    (run / ".generation-1" / "work").symlink_to(elsewhere)
    generation.aside("work")  # what lay there is a link, which alone is deleted
    generation.discard(run / "model")
    assert tree(elsewhere) == before


def test_what_others_delete_while_links_are_looked_for_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "checkpoints" / "step-1").mkdir(parents=True)
    iterdir = Path.iterdir

    def late(folder):
        found = list(iterdir(folder))
        for entry in found:
            entry.rmdir()
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", late)
    require_no_links(tmp_path)
    assert not (tmp_path / "checkpoints" / "step-1").exists()


def test_links_that_are_no_matter_of_the_run_stay(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "latest").symlink_to(tmp_path)
    (tmp_path / "door").symlink_to(tmp_path / "run")
    open_recipe(job_in(tmp_path / "door"))
