"""Workers that die by SIGKILL anywhere: the run that goes on ends as the undisturbed one, bit for bit."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.trainer import kill_group
from tests.trainer.engine_group import ENGINES
from tests.trainer.kill_group import SEEDS, STEPS, job_in
from tests.trainer.mlp import SAMPLES
from unfreeze_trainer.data.order import epoch_order, global_batches

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

KILLED = -9


class Kills:
    """Jobs whose workers are killed; what becomes of each is looked at by several tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.killed = cache(lambda engine: kill_group.killed_case(engine, folder))
        self.resized = cache(
            lambda engine, change: kill_group.resized_case(engine, folder, *map(int, change.split("-")))
        )
        self.spread = cache(self._spread)

    def _spread(self) -> float:
        """Return how far apart other seeds end."""
        self.killed("DDP")
        for seed in SEEDS[1:]:
            kill_group.start_gang(job_in(self.folder / f"seed-{seed}", "DDP", 2, seed=seed), None, 0)
        losses = [loss_of(self.folder / run) for run in ("DDP-whole", *(f"seed-{seed}" for seed in SEEDS[1:]))]
        return max(losses) - min(losses)


@pytest.fixture(scope="module")
def kills(tmp_path_factory, ranks) -> Kills:
    return Kills(tmp_path_factory.mktemp("kills"))


def loss_of(run: Path) -> float:
    return json.loads((run / "report.json").read_text())["results"]["validation"]["loss"]


def events(run: Path, kind: str) -> list[dict]:
    found = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event for event in found if event["event"] == kind]


def report_of(run: Path) -> dict:
    """A report without what time alone decides."""
    report = json.loads((run / "report.json").read_text())
    del report["finished"], report["seconds"]
    for phase in report["phases"]:
        del phase["seconds"]
    return report


def test_wherever_a_write_is_cut_off_the_newest_whole_checkpoint_is_found(kills):
    found = kill_group.crash_points(kills.folder)
    assert len(found) > 20
    assert [problem for _, problem in found if problem] == []
    steps = [step for step, _ in found]
    assert steps == sorted(steps)
    assert set(steps) == {2, 3}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_run_ends_bit_for_bit_as_the_undisturbed_one(kills, engine):
    said = kills.killed(engine)
    for moment, codes in said["attempts"]:
        assert codes[moment["rank"]] == KILLED, f"nothing happened at {moment}"
    assert said["last"] == [0, 0]
    whole, again = kills.folder / f"{engine}-whole", kills.folder / f"{engine}-killed"
    assert report_of(again) == report_of(whole)
    ours, theirs = (torch.load(run / "model" / "weights.pt") for run in (again, whole))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    last = f"checkpoints/step-{STEPS}"
    for file in ("weights.safetensors", "moments.safetensors"):
        assert (again / last / file).read_bytes() == (whole / last / file).read_bytes()
    for file in ("predictions/validation.parquet", "predictions/test.parquet", "evaluation.json", "label-issues.csv"):
        assert (again / file).read_bytes() == (whole / file).read_bytes()
    steps = [line.partition(",")[0] for line in (again / "history.csv").read_text().splitlines()[1:]]
    assert steps == sorted(set(steps), key=int), "each step once, whatever was killed when"
    assert [event["event"] for event in events(again, "brokenCheckpoint")] == [], "an interrupted write is no damage"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_run_goes_on_from_its_newest_checkpoint_and_leaves_nothing_behind(kills, engine):
    kills.killed(engine)
    run = kills.folder / f"{engine}-killed"
    starts = [event["step"] for event in events(run, "start")]
    assert starts == sorted(starts)
    assert starts[-1] == STEPS
    assert len(set(starts)) > 3, "most attempts got further"
    generation = events(run, "start")[-1]["generation"]
    left = sorted(path.name for path in run.iterdir())
    figures = ["evaluation.json", "events.jsonl", "history.csv", "label-issues.csv"]
    assert left == sorted(
        [
            f".generation-{generation}",
            "checkpoints",
            *figures,
            "model",
            "predictions",
            "recipe.json",
            "report.html",
            "report.json",
        ]
    )
    assert list((run / f".generation-{generation}").iterdir()) == []
    assert all(path.name.startswith("step-") for path in (run / "checkpoints").iterdir())


@pytest.mark.parametrize("change", ["2-1", "1-2"])
@pytest.mark.parametrize("engine", ENGINES)
def test_another_number_of_workers_goes_on_at_the_same_step_in_the_same_order(kills, engine, change):
    before, after = map(int, change.split("-"))
    killed, last = kills.resized(engine, change)
    assert killed[0] == KILLED, "the other rank may have lost its connection first"
    assert last == [0] * after
    run = kills.folder / f"{engine}-{change}"
    first, second = events(run, "start")
    assert (first["worldSize"], second["worldSize"]) == (before, after)
    assert 0 < second["step"] <= 10
    taken = defaultdict(set)
    step = dict.fromkeys(range(2), second["step"])
    for line in (run.with_suffix(".order")).read_text().splitlines():
        attempt, rank, *samples = json.loads(line)
        if attempt == str(after):
            taken[step[rank]].update(samples)
            step[rank] += 1
    size = job_in(run, engine, 2).training.batch_size
    epochs = [epoch_order(0, epoch, SAMPLES["train"]) for epoch in range(6)]
    planned = [set(map(int, batch)) for epoch in epochs for batch in global_batches(epoch, size)]
    assert [taken[step] for step in range(second["step"], STEPS)] == planned[second["step"] :]


@pytest.mark.parametrize("change", ["2-1", "1-2"])
@pytest.mark.parametrize("engine", ENGINES)
def test_another_number_of_workers_changes_the_result_less_than_another_seed(kills, engine, change):
    kills.killed(engine)
    kills.resized(engine, change)
    changed, whole = (loss_of(kills.folder / f"{engine}-{run}") for run in (change, "whole"))
    assert abs(changed - whole) < kills.spread()
