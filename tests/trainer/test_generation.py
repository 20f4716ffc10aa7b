"""Two writers of one run folder: the one that started last wins, whatever the other one was doing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.runs.events import Events
from unfreeze_trainer.runs.generation import GENERATION_ENV, Generation, Superseded


def written(generation: Generation, name: str, text: str = "new") -> Path:
    aside = generation.aside(name)
    aside.mkdir()
    (aside / "file").write_text(text)
    return aside


def entries(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_is_committed_is_there_and_nothing_else(tmp_path):
    generation = Generation.take(tmp_path / "run")
    generation.commit(written(generation, "a"), tmp_path / "run" / "kept" / "a")
    generation.commit(written(generation, "b"), tmp_path / "run" / "kept" / "b")
    generation.commit(written(generation, "a", "newer"), tmp_path / "run" / "kept" / "a")
    generation.discard(tmp_path / "run" / "kept" / "b")
    generation.move(tmp_path / "run" / "kept" / "a", tmp_path / "run" / "kept" / "c")
    assert entries(tmp_path / "run") == [".generation-1", "kept", "kept/c", "kept/c/file"]
    assert (tmp_path / "run/kept/c/file").read_text() == "newer"


def test_generations_count_up_and_leave_the_newest_folder_alone(tmp_path):
    for number in (1, 2, 3):
        assert Generation.take(tmp_path).number == number
        assert entries(tmp_path) == [f".generation-{number}"]


# Each is what a process was about to do when its machine stood still, and what it does when that moves on.
LATE = {
    "begin": lambda generation, _, __: generation.aside("step-2"),
    "commit": lambda generation, aside, run: generation.commit(aside, run / "step-1"),
    "replace": lambda generation, aside, run: generation.commit(aside, run / "step-0"),
    "delete": lambda generation, _, run: generation.discard(run / "step-0"),
    "move": lambda generation, _, run: generation.move(run / "step-0", run / "elsewhere"),
    "look": lambda generation, _, __: generation.check(),
}


@pytest.mark.parametrize("deed", LATE)
def test_a_late_writer_changes_nothing_and_is_told_why(tmp_path, deed):
    late = Generation.take(tmp_path)
    late.commit(written(late, "step-0", "old"), tmp_path / "step-0")
    aside = written(late, "step-1")
    newest = Generation.take(tmp_path)
    before = entries(tmp_path)
    with pytest.raises(Superseded, match=r"generation 2; this one was 1.*output\.destination") as told:
        LATE[deed](late, aside, tmp_path)
    assert isinstance(told.value, JobError), "no other attempt of this pod can succeed"
    assert entries(tmp_path) == before == [".generation-2", "step-0", "step-0/file"]
    newest.check()


def test_a_late_writer_that_does_not_look_has_nothing_to_rename(tmp_path):
    """Between the look and the rename there may be hours."""
    late = Generation.take(tmp_path)
    aside = written(late, "step-1")
    late.check()
    Generation.take(tmp_path)
    with pytest.raises(FileNotFoundError):
        aside.replace(tmp_path / "step-1")
    with pytest.raises(FileNotFoundError):
        (tmp_path / "somewhere").replace(aside)  # nor can it take anything away


def test_a_number_that_was_there_before_is_not_taken_again(tmp_path, monkeypatch):
    """It counted, slept, and others had come and gone."""
    Generation.take(tmp_path)
    glob, seen = Path.glob, []

    def slow(folder, pattern):
        found = list(glob(folder, pattern))
        if not seen:
            seen.append(found)
            Generation.take(tmp_path)
            Generation.take(tmp_path)
        return found

    monkeypatch.setattr(Path, "glob", slow)
    assert Generation.take(tmp_path).number == 4
    assert entries(tmp_path) == [".generation-4"]


WRITER = """
import sys
from pathlib import Path
from unfreeze_trainer.runs.generation import Generation, Superseded
run = Path(sys.argv[1])
generation = Generation.take(run)
print("taken", flush=True)
for number in range(10**6):
    try:
        with generation.fenced():
            aside = generation.aside("work")
            aside.mkdir()
            (aside / "file").write_text("whole")
            generation.commit(aside, run / "step")
    except Superseded as error:
        print(number, flush=True)
        sys.exit(2)
"""


def test_a_writer_in_full_swing_is_stopped_between_two_renames(tmp_path):
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout.readline() == "taken\n"
            while not (tmp_path / "step").exists():
                pass
            newest = Generation.take(tmp_path)
            before = entries(tmp_path)
            assert writer.wait() == 2, "any other error would be tried again"
        assert entries(tmp_path) == before
        assert before in ([f".generation-{newest.number}", "step", "step/file"], [f".generation-{newest.number}"])


def test_workers_of_one_pod_go_on_with_its_generation(tmp_path, monkeypatch):
    assert Generation.of_worker(tmp_path).number == 1, "no agent has taken one"
    monkeypatch.setenv(GENERATION_ENV, str(Generation.take(tmp_path).number))
    first = Generation.of_worker(tmp_path)
    written(first, "step-1")
    again = Generation.of_worker(tmp_path)
    assert (first.number, again.number) == (2, 2)
    assert entries(tmp_path) == [".generation-2"], "what a killed worker was writing is gone"
    Generation.take(tmp_path)
    with pytest.raises(Superseded):
        Generation.of_worker(tmp_path)


def test_a_folder_that_cannot_be_cleared_is_said_at_once(tmp_path, monkeypatch):
    written(Generation.take(tmp_path), "step-1")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        Generation.take(tmp_path)


def test_what_is_committed_is_on_the_disk_before_it_is_there(tmp_path, monkeypatch):
    generation, synced = Generation.take(tmp_path), []

    def sync(path):
        synced.append((path.name, (tmp_path / "model").exists()))

    monkeypatch.setattr("unfreeze_trainer.runs.generation.sync", sync)
    generation.commit(written(generation, "new"), tmp_path / "model")
    assert synced == [("new", False), ("file", False), (tmp_path.name, True)]


def test_what_happens_after_a_crash_in_a_line_has_a_line_of_its_own(tmp_path):
    events = Events(tmp_path, Generation.take(tmp_path))
    events.add("start", step=0)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event": "cut')
    events.add("start", step=1)
    events.add("start", step=2)
    assert [line["step"] for line in events.read("start")] == [0, 1, 2]
