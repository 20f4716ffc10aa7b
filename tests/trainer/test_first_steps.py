"""Every architecture of the sample takes a step on one worker, some of every kind on two; weights that get no gradient are left out.

Two ranks have gone through them (`architecture_group`). `make test-matrix` has all of them on two workers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trainer.architecture_group import ARCHITECTURES, BY_CHANCE, DIVIDED, SHARDED, idle_job, idle_task, nets_of
from tests.trainer.idle import UNUSED
from tests.trainer.reference import train_by_hand

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]

NEVER_USED = {
    "big_bird": {"bert.pooler"},
    "esm": {"esm.contact_head"},
    "xlnet": {"transformer.mask_emb", "seg_embed", "r_s_bias"},  # without token types
    "led": {"global"},  # without a global attention mask
    "dinov2": {"dinov2.embeddings.mask_token"},
    "siglip": {"vision_model.head"},
    "clip-image": {"vision_model.post_layernorm"},
}
"""What the names of all weights without a gradient have one of."""


SPECIAL = {*NEVER_USED, *BY_CHANCE}
EVERY = 5
"""Of the others that two workers train: what they do alike is the engine's."""
ON_TWO = [name for place, name in enumerate(ARCHITECTURES) if name in SPECIAL or place % EVERY == 0]
STEPS = [pytest.param(name, 1) for name in ARCHITECTURES]
STEPS += [pytest.param(name, 2, marks=[] if name in ON_TWO else pytest.mark.matrix) for name in ARCHITECTURES]


@pytest.fixture(scope="module")
def group(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("architectures")
    asked = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    on_two = {params["name"] for params in asked if params.get("workers") == 2 and "name" in params}
    (folder / "on-two.json").write_text(json.dumps([name for name in ARCHITECTURES if name in on_two]))
    run_group("tests.trainer.architecture_group", folder)
    return folder


def run_group(module: str, folder: Path) -> None:
    """Run a module with a folder in two ranks of one process group."""
    options = ["--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", module, folder]
    with (folder / "log").open("w") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False, timeout=1800)
    assert done.returncode == 0, (folder / "log").read_text()[-5000:]


@pytest.fixture(scope="module")
def first(group):
    """What became of each case: of one worker by the rank that had it, of two by both."""
    both = [json.loads((group / f"first-{rank}.json").read_text()) for rank in (0, 1)]
    return {case: [seen[case] for seen in both if case in seen] for case in {**both[0], **both[1]}}


def check(name, seen):
    assert seen["error"] is None
    assert bool(seen["unused"]) == (name in NEVER_USED)
    assert all(any(part in parameter for part in NEVER_USED[name]) for parameter in seen["unused"])
    assert not seen["atTimes"] or name in BY_CHANCE


@pytest.mark.parametrize(("name", "workers"), STEPS)
def test_an_architecture_takes_a_step(first, name, workers):
    found = first[f"{name} DDP {workers}"]
    assert len(found) == workers
    for seen in found:
        check(name, seen)


@pytest.mark.parametrize("engine", SHARDED)
@pytest.mark.parametrize("name", DIVIDED)
def test_unused_weights_are_left_out_of_every_engine(first, name, engine):
    for seen in first[f"{name} {engine} 2"]:
        check(name, seen)


@pytest.fixture(scope="module")
def nets(group):
    return [torch.load(group / f"nets-{rank}.pt") for rank in (0, 1)]


TRAINED = [(net, engine) for engine in ("DDP", *SHARDED) for net in ("never", "scalar") if net in nets_of(engine)]
TRAINED += [(net, "DDP") for net in ("routed", "dropped")]


@pytest.mark.parametrize(("net", "engine"), TRAINED)
def test_a_net_with_idle_weights_trains_as_by_hand(nets, tmp_path, net, engine):
    torch.set_num_threads(1)
    for seen in nets:
        assert seen[f"{net} {engine} 2"]["error"] is None
        assert seen[f"{net} {engine} 2"]["unused"] == UNUSED.get(net, [])
    ours = nets[0][f"{net} {engine} 2"]["weights"]
    ends = train_by_hand(idle_job(net, engine, tmp_path, 2), idle_task(net, 2), ranks=2)
    start = dict(idle_task(net, 2).build_model().module.named_parameters())
    assert ours.keys() == start.keys()
    for name, weight in ours.items():
        assert torch.allclose(weight, ends[name], rtol=0, atol=1e-6), name
        assert torch.equal(weight, start[name]) == (name in UNUSED.get(net, [])), name
    first, second = (seen[f"{net} {engine} 2"]["checksums"] for seen in nets)
    assert torch.equal(first, second)


def events_of(folder, kind):
    told = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event for event in told if event["event"] == kind]


def test_unused_weights_are_told_of_once(group):
    run = group / "2-DDP-never-idle"
    (event,) = events_of(run, "unusedParameters")
    assert event["parameters"] == UNUSED["never"]
    assert json.loads((run / "report.json").read_text())["unusedParameters"] == UNUSED["never"]
    assert not events_of(group / "2-DDP-routed-idle", "unusedParameters")
    assert json.loads((group / "2-DDP-routed-idle" / "report.json").read_text())["unusedParameters"] == []


def test_a_gradient_that_comes_later_is_taken_in_on_all_workers(group, nets):
    start = dict(idle_task("later", 2).build_model().module.named_parameters())
    for seen in nets:
        assert seen["later DDP 2"]["error"] is None
        assert seen["later DDP 2"]["unused"] == []
    assert torch.equal(*(seen["later DDP 2"]["checksums"] for seen in nets))
    ours = nets[0]["later DDP 2"]["weights"]
    assert [name for name in ours if torch.equal(ours[name], start[name])] == ["pooler.weight", "pooler.bias"]
    (event,) = events_of(group / "2-DDP-later-idle", "lateGradients")
    assert event["step"] == 1
    assert event["parameters"] == ["extra.bias", "extra.weight"]
    assert json.loads((group / "2-DDP-later-idle" / "report.json").read_text())["unusedParameters"] == []


@pytest.mark.parametrize("net", ["routed", "dropped", "later"])
@pytest.mark.parametrize("engine", SHARDED)
def test_engines_that_need_every_gradient_say_so(nets, engine, net):
    for seen in nets:
        said = seen[f"{net} {engine} 2"]["error"]
        assert said.startswith(
            "UnsupportedModel: spec.distribution.engine: DeepSpeed, and FSDP on several workers, need every"
        )
        assert said.endswith("Choose DDP")


def test_a_gradient_that_no_longer_comes_ends_the_job_by_name(nets):
    for rank, seen in enumerate(nets):
        said = seen["missing DDP 2"]["error"]
        assert said.startswith(
            f"UnsupportedModel: rank {rank}: in this step no gradient came for extra.weight, extra.bias"
        )
