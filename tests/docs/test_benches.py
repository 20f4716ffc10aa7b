"""Each benchmark is run by a target of the Makefile, with what it takes."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def runs(target, *variables):
    """Return the names that a target would run, and how."""
    command = ["make", "--dry-run", "--no-print-directory", target, *variables]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    loop = said[said.index("for name in ") :]
    return loop.removeprefix("for name in ").partition(";")[0].split(), loop


def test_every_benchmark_is_run_by_one_target():
    every = {file.stem for file in (ROOT / "bench").glob("[!_]*.py")}
    speed, outcomes = runs("bench")[0], runs("bench-outcomes")[0]
    assert set(speed) & set(outcomes) == set()
    assert every - {"accelerator"} <= {*speed, *outcomes, "soak"} <= every
    assert "soak" not in {*speed, *outcomes}, "it takes an hour, and has a target of its own"


@pytest.mark.parametrize("target", ["bench", "bench-outcomes"])
def test_some_are_run_by_their_names(target):
    assert runs(target, "B=one other")[0] == ["one", "other"]


def test_those_of_outcomes_get_a_folder():
    assert "python -m bench.$name out/data > " in runs("bench-outcomes")[1]
    assert "python -m bench.$name > " in runs("bench")[1]
