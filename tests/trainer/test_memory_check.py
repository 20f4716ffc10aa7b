"""Before a job is begun: what surely does not fit is refused with ways that fit; what may fit, or nobody can tell, begins."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from tests.trainer.jobs import bert_folder, make_job, write_csv
from unfreeze_trainer.estimates import check
from unfreeze_trainer.estimates.aside import Aside, AsideError
from unfreeze_trainer.estimates.estimate import Estimate
from unfreeze_trainer.estimates.room import Room, host_memory
from unfreeze_trainer.estimates.trace import PhaseBytes, Traced
from unfreeze_trainer.link import Link

MIB = 2**20
PHASE = PhaseBytes("all", 10, 10 * MIB, 20 * MIB, 30 * MIB, 90 * MIB, 50 * MIB, 30 * MIB, 120 * MIB)
TRACED = Traced(10, {"float32": 10 * MIB}, 15 * MIB, [PHASE], 60 * MIB, 30 * MIB, 10 * MIB)


def write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_least_limit_counts_with_its_swap(tmp_path):
    assert host_memory(tmp_path) == (None, "the memory of the machine")
    write(tmp_path, proc__meminfo="MemTotal:  1000 kB\nMemFree: 1 kB\nSwapTotal: 24 kB\n")
    assert host_memory(tmp_path) == (1024 * 1024, "the memory of the machine")
    group = {"sys__fs__cgroup__memory_DOT_max": "3000\n", "sys__fs__cgroup__memory_DOT_swap_DOT_max": "0\n"}
    write(tmp_path, **group)
    assert host_memory(tmp_path) == (3000, "the memory limit of the pod")
    for most, swap in (
        ("500", 500),
        ("90000", 24 * 1024),
        ("max", 24 * 1024),
    ):  # what a group may swap is bounded by what there is
        write(tmp_path, sys__fs__cgroup__memory_DOT_swap_DOT_max=f"{most}\n")
        assert host_memory(tmp_path)[0] == 3000 + swap


def test_a_group_within_groups_has_the_least_of_their_limits(tmp_path):
    write(tmp_path, proc__self__cgroup="0::/user.slice/run.scope\n")
    for group, limit in (("user.slice", 2000), ("user.slice/run.scope", 4000)):
        folder = tmp_path / "sys/fs/cgroup" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.swap.max").write_text("0\n")
    assert host_memory(tmp_path)[0] == 2000
    first = tmp_path / "first"
    write(first, proc__self__cgroup="4:cpu,memory:/pod\n")
    (first / "sys/fs/cgroup/memory/pod").mkdir(parents=True)
    (first / "sys/fs/cgroup/memory/pod/memory.limit_in_bytes").write_text("7000\n")
    assert host_memory(first)[0] == 7000, "swap is not counted, and there is none"
    write(first, proc__meminfo="MemTotal: 1000 kB\nSwapTotal: 4 kB\n")
    assert host_memory(first)[0] == 7000 + 4096
    (first / "sys/fs/cgroup/memory/pod/memory.memsw.limit_in_bytes").write_text("8000\n")
    assert host_memory(first)[0] == 8000


def estimate(**fields):
    return Estimate(TRACED, workers=2, base=100 * MIB, **fields)


def room(host, **fields):
    return Room(host, "the memory limit of the pod", **fields)


def test_only_what_is_held_for_sure_is_compared():
    """One process, the step of one worker and the forward pass of the other: no checkpoint, no export, and 85 % of it."""
    job = make_job("/none", "/none.csv", distribution={"numNodes": 2})
    least = (100 + 90 + 60) * MIB
    two = {"workers": 2}
    assert not check.too_large(job, estimate(), room(int(check.SURE * least) + 1, **two))
    text = check.too_large(job, estimate(), room(int(check.SURE * least) - 1, **two))
    assert text.startswith(
        "the job does not fit into 212.5 MiB, the memory limit of the pod: phase all needs at least 250.0 MiB"
    )
    assert "in its 2 workers" in text
    assert "10.0 MiB of weights, 20.0 MiB of moments and buffers, 30.0 MiB of activations" in text
    assert estimate().host > least, "what is estimated is more"


def test_what_a_model_keeps_while_it_says_texts_counts():
    said = replace(TRACED, phases=[replace(PHASE, saying=900 * MIB)])
    job = make_job("/none", "/none.csv")
    assert check.least_of(said, job).step == 900 * MIB
    found = Estimate(said, workers=1, base=100 * MIB)
    told = check.too_large(job, found, room(500 * MIB))
    assert "while it says texts (spec.training.evaluate.generate)" in told


def test_weights_that_stay_in_their_files_are_not_counted():
    """The kernel takes their pages back, and has them once for all workers."""
    phase = replace(PHASE, weights=410 * MIB, step=490 * MIB)
    kinds = {"float32": 10 * MIB, "bfloat16": 400 * MIB}
    traced = replace(TRACED, weights_by_dtype=kinds, phases=[phase])
    found = Estimate(traced, workers=2, base=100 * MIB)
    least = (100 + 90 + 60) * MIB
    limit = room(int(check.SURE * least) + 1, workers=2)
    assert not check.too_large(make_job("/none", "/none.csv", distribution={"numNodes": 2}), found, limit)
    copied = {"numNodes": 2, "engine": "DeepSpeed", "deepSpeed": {"zeroStage": 2}}
    assert check.too_large(make_job("/none", "/none.csv", distribution=copied), found, limit)
    widened = replace(phase, weights=510 * MIB)
    assert check.mapped(replace(traced, phases=[widened]), widened) == 300 * MIB, "100 MiB have become float32"
    on = replace(found, accelerated=True, workers=1)
    assert not check.too_large(make_job("/none", "/none.csv"), on, room(120 * MIB, accelerator=2**40))


def test_an_accelerator_is_asked_for_weights_and_moments_alone():
    job = make_job("/none", "/none.csv")
    on = {"accelerated": True}
    assert not check.too_large(job, estimate(**on), room(None, accelerator=27 * MIB + 1))
    text = check.too_large(job, estimate(**on), room(None, accelerator=25 * MIB))
    assert "the 25.0 MiB of an accelerator: phase all needs at least 30.0 MiB there" in text
    offload = {"engine": "DeepSpeed", "deepSpeed": {"zeroStage": 2, "offload": "Optimizer"}}
    assert not check.too_large(
        make_job("/none", "/none.csv", distribution=offload), estimate(**on), room(None, accelerator=25 * MIB)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"strategy": {"type": "Auto"}},
        {"strategy": {"type": "FeatureExtraction", "solver": "Closed"}},
        {"training": {"compile": True}},
        {"model": {"quantization": {"type": "NF4"}}, "adapter": {"type": "LoRA"}},
        {
            "model": {
                "source": None,
                "towers": [{"modality": one, "source": f"file:///{one}"} for one in ("Image", "Text")],
            },
            "task": {"type": "Alignment"},
        },
    ],
)
def test_what_cannot_be_told_begins_with_a_line_in_the_log(change, caplog):
    job = make_job("/none", "/none.csv", **change)
    with caplog.at_level(logging.INFO):
        check.refuse_what_cannot_fit(job, None, room(1))
    assert "is not looked at before it begins: " in caplog.text


def test_a_function_aside_may_not_take_for_ever():
    with pytest.raises(AsideError, match="more than 0 s"):
        Aside(lambda: time.sleep(60), int).result(0.05)
    assert Aside(lambda: "x" * 200_000, str).result(20) == "x" * 200_000


@pytest.mark.slow
def test_a_function_aside_ends_with_who_waits_for_it_and_with_its_parent():
    with pytest.raises(AsideError, match="asked to stop"):
        Aside(lambda: time.sleep(60), int).result(60, lambda: True)
    program = (
        "import os, sys, time\nfrom unfreeze_trainer.estimates.aside import Aside\n"
        "aside = Aside(lambda: time.sleep(60), int)\nprint(aside._pid, flush=True)\nos.kill(os.getpid(), 9)"
    )
    # The copy holds the pipe as well: it ends when the copy does.
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert time.monotonic() - began < 50


def test_a_run_that_has_trained_is_not_looked_at_again(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "refuse_what_cannot_fit", None)
    monkeypatch.setenv("LOCAL_RANK", "0")
    (tmp_path / "checkpoints/step-4").mkdir(parents=True)
    job = make_job("/none", "/none.csv", output={"destination": f"file://{tmp_path}"})
    check.check_memory(job, None, Link(tmp_path))
    assert Link(tmp_path).memory_checked()


def test_what_frozen_blocks_hold_for_a_moment_is_not_counted():
    """Their outputs may be cached, by a few samples at a time."""
    frozen = Traced(20, {"float32": 10 * MIB}, 15 * MIB, [PHASE], 60 * MIB, 30 * MIB, 10 * MIB)
    job = make_job("/none", "/none.csv", strategy={"type": "FeatureExtraction"})
    assert check.least_of(frozen, job).step == (10 + 20 + 30) * MIB
    assert check.least_of(TRACED, job).step == 90 * MIB


def test_other_workers_of_a_pod_wait_for_the_first(tmp_path, monkeypatch):
    link, seen = Link(tmp_path), []
    job = make_job("/none", "/none.csv", output={"destination": f"file://{tmp_path}/run"})
    monkeypatch.setattr(check, "refuse_what_cannot_fit", lambda *_: seen.append(link.memory_checked()))
    monkeypatch.setattr(Room, "here", lambda _: room(1))
    monkeypatch.setenv("LOCAL_RANK", "1")
    waits = threading.Thread(target=check.check_memory, args=(None, None, link))
    waits.start()
    assert not seen
    assert waits.is_alive()
    monkeypatch.setenv("LOCAL_RANK", "0")
    for _ in range(2):  # started again in its pod, it need not look again
        check.check_memory(job, None, link)
    waits.join(10)
    assert not waits.is_alive()
    assert seen == [False]


def test_what_goes_wrong_in_the_check_lets_the_job_begin(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LOCAL_RANK", "0")

    def fail(*_):
        raise OSError("no such thing")

    monkeypatch.setattr(check, "refuse_what_cannot_fit", fail)
    monkeypatch.setattr(Room, "here", lambda _: room(1))
    with caplog.at_level(logging.INFO):
        job = make_job("/none", "/none.csv", output={"destination": f"file://{tmp_path}/run"})
        check.check_memory(job, None, Link(tmp_path))
    assert "is not known: OSError: no such thing" in caplog.text
    assert Link(tmp_path).memory_checked()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    bert_folder(folder / "bert")
    write_csv(folder / "texts.csv")
    return folder


def small(inputs, **change):
    return make_job(inputs / "bert", inputs / "texts.csv", **change)


def test_a_small_job_is_let_through_by_its_files_alone(inputs, monkeypatch):
    from unfreeze_trainer.tasks import open_task

    job = small(inputs)
    task = open_task(job)
    monkeypatch.setattr(check, "_asked", None)
    check.refuse_what_cannot_fit(job, task, room(2 * 2**30))
    assert not check.plainly_fits(job, task, room(2**20))
    assert not check.plainly_fits(job, task, room(None, accelerator=2**20))
    random = small(inputs, model={"initialization": "Random"})
    assert check.plainly_fits(random, open_task(random), room(2 * 2**30)), "its folder has weights"


def test_layers_of_a_transformer_tell_by_their_shapes_what_a_job_holds_at_most():
    """Not where layers share their weights, nor those of experts or of convolutions."""
    layer = {f"layer.0.{name}.weight": (16, 16) for name in ("query", "key", "value", "output")} | {
        "layer.0.up": (32, 16)
    }
    shapes = layer | {"embeddings.weight": (100, 16), "layer.0.norm.weight": (16,)}
    assert check._tells(shapes, 1)
    assert not check._tells(shapes, 2)
    assert not check._tells(shapes | {"layer.0.experts": (4, 16, 16)}, 1)
    assert not check._tells({}, 1)
    assert check._sides(shapes, says=False) == 4 * 32 + 48
    assert check._sides(shapes, says=True) == 4 * 32 + 48 + 116


@pytest.mark.slow
def test_what_a_job_holds_at_most_is_far_above_what_is_estimated(tmp_path):
    from unfreeze_trainer.estimates.trace import trace
    from unfreeze_trainer.tasks import open_task

    write_csv(tmp_path / "texts.csv")
    sizes = {"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 512, "num_attention_heads": 4}
    bert_folder(tmp_path / "bert", **sizes)
    job = make_job(tmp_path / "bert", tmp_path / "texts.csv", strategy={"type": "FullFineTuning"})
    task = open_task(job)
    traced = Aside(lambda: trace(job, task, steps_alone=True), Traced).result()
    assert 2 * check.least_of(traced, job).step < check.at_most(job, task)


REFUSED = """
import json, os, sys
from pathlib import Path
from tests.trainer.jobs import make_job
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.estimates import check
from unfreeze_trainer.estimates.estimate import resident
from unfreeze_trainer.estimates.room import Room
from unfreeze_trainer.link import Link
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.worker import work

model, data, change = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
job = make_job(model, data, **change)
task = open_task(job)
check.plainly_fits = lambda *_: False
os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
Room.here = classmethod(lambda *_: Room(resident() + (int(sys.argv[4]) << 20), "the memory limit of the pod"))
build, here = task.build_model, os.getpid()
task.build_model = lambda: sys.exit("the model is loaded") if os.getpid() == here else build()
try:
    work(job, lambda _: task, Link(Path(sys.argv[2]).parent))
except JobError as error:
    print(error.reason, error.message)  # before the model is loaded
del task.build_model
check.refuse_what_cannot_fit(job, task, Room(resident() + (int(sys.argv[5]) << 20), "the memory limit of the pod"))
print("begins")
"""


def wide(inputs, **config):
    """Return a folder with a configuration and a tokenizer, and no weights."""
    folder = inputs / f"wide-{config['hidden_size']}-{config['num_hidden_layers']}"
    if not folder.exists():
        folder.mkdir()
        for file in (inputs / "bert").iterdir():
            if file.name != "model.safetensors":
                (folder / file.name).write_bytes(file.read_bytes())
        known = json.loads((folder / "config.json").read_text())
        heads = {"num_attention_heads": 16, "intermediate_size": 4 * config["hidden_size"]}
        (folder / "config.json").write_text(json.dumps(known | heads | config))
    return folder


@pytest.mark.slow
def test_ways_that_fit_have_been_estimated(inputs):
    """Five layers of 50 million weights: all of them take four gigabytes to train, an adapter a third of that."""
    change = {"model": {"initialization": "Random"}}
    arguments = [
        wide(inputs, hidden_size=2048, num_hidden_layers=5),
        inputs / "texts.csv",
        json.dumps(change),
        3000,
        6000,
    ]
    command = [sys.executable, "-c", REFUSED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    refused, begins = [line for line in done.stdout.splitlines() if line.startswith(("DoesNotFit ", "begins"))]
    assert refused.startswith("DoesNotFit the job does not fit into ")
    assert "phase all needs at least " in refused
    assert (
        "It fits with adapter: {type: LoRA} and output.exports: [Adapter] (another result: it trains less, and "
        in refused
    )
    assert "As it is it takes " in refused
    assert begins == "begins"
