"""Workers that die by SIGKILL anywhere: the run that goes on ends as the undisturbed one, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from tests.trainer.engine_group import ENGINES
from tests.trainer.kill_group import SEEDS, STEPS, job_in
from tests.trainer.mlp import SAMPLES
from unfreeze_trainer.data.order import epoch_order, global_batches

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

KILLED = -9


@pytest.fixture(scope="session")
def kills(tmp_path_factory) -> Path:
    """What is left of every case of `kill_group`."""
    folder = tmp_path_factory.mktemp("kills")
    log = folder / "log"
    with log.open("w") as output:
        code = subprocess.run(
            [sys.executable, "-m", "tests.trainer.kill_group", folder],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
            check=False,
        ).returncode
    assert code == 0, log.read_text()[:3000]
    return folder


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
    found = json.loads((kills / "crash-points.json").read_text())
    assert len(found) > 20
    assert [problem for _, problem in found if problem] == []
    steps = [step for step, _ in found]
    assert steps == sorted(steps)
    assert set(steps) == {2, 3}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_run_ends_bit_for_bit_as_the_undisturbed_one(kills, engine):
    said = json.loads((kills / f"{engine}.json").read_text())["killed"]
    for moment, codes in said["attempts"]:
        assert codes[moment["rank"]] == KILLED, f"nothing happened at {moment}"
    assert said["last"] == [0, 0]
    whole, killed = kills / f"{engine}-whole", kills / f"{engine}-killed"
    assert report_of(killed) == report_of(whole)
    ours, theirs = (torch.load(run / "model" / "weights.pt") for run in (killed, whole))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    last = f"checkpoints/step-{STEPS}"
    for file in ("weights.safetensors", "moments.safetensors"):
        assert (killed / last / file).read_bytes() == (whole / last / file).read_bytes()
    assert [event["event"] for event in events(killed, "brokenCheckpoint")] == [], "an interrupted write is no damage"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_run_goes_on_from_its_newest_checkpoint_and_leaves_nothing_behind(kills, engine):
    killed = kills / f"{engine}-killed"
    starts = [event["step"] for event in events(killed, "start")]
    assert starts == sorted(starts)
    assert starts[-1] == STEPS
    assert len(set(starts)) > 3, "most attempts got further"
    generation = events(killed, "start")[-1]["generation"]
    left = sorted(path.name for path in killed.iterdir())
    assert left == [f".generation-{generation}", "checkpoints", "events.jsonl", "model", "recipe.json", "report.json"]
    assert list((killed / f".generation-{generation}").iterdir()) == []
    assert all(path.name.startswith("step-") for path in (killed / "checkpoints").iterdir())


@pytest.mark.parametrize("change", ["2-1", "1-2"])
@pytest.mark.parametrize("engine", ENGINES)
def test_another_number_of_workers_goes_on_at_the_same_step_in_the_same_order(kills, engine, change):
    before, after = map(int, change.split("-"))
    killed, last = json.loads((kills / f"{engine}.json").read_text())["resized"][change]
    assert killed[0] == KILLED, "the other rank may have lost its connection first"
    assert last == [0] * after
    run = kills / f"{engine}-{change}"
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
    def loss(run):
        return json.loads((kills / run / "report.json").read_text())["results"]["validation"]["loss"]

    seeds = [loss("DDP-whole"), *(loss(f"seed-{seed}") for seed in SEEDS[1:])]
    assert abs(loss(f"{engine}-{change}") - loss(f"{engine}-whole")) < max(seeds) - min(seeds)
