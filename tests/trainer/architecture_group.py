"""Two ranks that train every architecture of the sample, and nets with idle weights: each rank alone, then both together.

torchrun -m tests.trainer.architecture_group OUT
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.trainer.architectures import CLASSES, TIMM, TRANSFORMERS, build, build_small_timm, build_timm
from tests.trainer.engine_group import ENGINES, open_run
from tests.trainer.idle import NETS, IdleTask
from tests.trainer.jobs import make_job
from tests.trainer.test_unused import assert_same, state_of
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.blocks import find_blocks
from unfreeze_trainer.models.heads import timm_head, transformers_head
from unfreeze_trainer.objectives.classification import ClassificationMetrics
from unfreeze_trainer.tasks import Task
from unfreeze_trainer.training import unused
from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.unused import Evidence, find_unused

ARCHITECTURES = [*TRANSFORMERS, *TIMM]
DIVIDED = ("big_bird", "xlnet", "esm", "clip-image", "siglip", "dinov2")
"""Architectures with unused weights, which the sharded engines train too."""
SHARDED = ("FSDP", "ZeRO-1", "ZeRO-2", "ZeRO-3")
KINDS = {("later", 1): 4, ("later", 2): 5, ("missing", 1): 18, ("missing", 2): 5}
"""First sample of the other kind: some batches of one worker have none, all batches have some on both of two."""


BY_CHANCE = ("wav2vec2", "wav2vec2-ctc", "hubert", "wavlm")
"""Leave layers out at random."""
STEPS = dict.fromkeys(BY_CHANCE, 6)  # each layer should have had its turn
# Their heads begin with zeros, through which no gradient comes.
STEPS |= dict.fromkeys(("mixer_s32_224", "resmlp_12_224", "gmlp_ti16_224", "hiera_tiny_224", "sequencer2d_s"), 2)


class ArchitectureTask(Task):
    """An architecture, its loss the distance of whatever it returns first from ones."""

    labels = tuple("abcdefg")
    blank_loss = 1.0
    pins = {"base": {"source": "file:///none", "files": {}}, "data": {"train": "0"}}  # noqa: RUF012

    def __init__(self, name: str, samples: int) -> None:
        self.metrics = ClassificationMetrics(CLASSES)
        self.splits = {"train": samples, "validation": samples}
        self._timm = name in TIMM
        module, self._inputs = build_small_timm(name) if self._timm else build(name)
        head = timm_head(build_timm(name)[0], CLASSES) if self._timm else transformers_head(module)
        self._loaded = LoadedModel(module, find_blocks(module, head), frozenset())

    def build_model(self) -> LoadedModel:
        return self._loaded

    def batches(self, _split, batches, **_) -> Iterator[dict[str, Tensor]]:
        for _indices in batches:
            yield self._inputs | {"labels": torch.zeros(2)}

    def forward(self, module: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        out = module(*inputs.values()) if self._timm else module(**inputs)
        if isinstance(out, Tensor):
            return out
        return sum(out[1:], out[0]) / len(out) if self._timm else getattr(out, "logits", out[0])

    def loss(self, output: Tensor, _batch: dict[str, Tensor]) -> Tensor:
        return (output.float().flatten(1) - 1).square().mean(dim=1)

    def export(self, *_, **__) -> None:
        raise NotImplementedError

    def verify_export(self, *_) -> None:
        raise NotImplementedError

    def usage(self, *_) -> str:
        raise NotImplementedError


def job_of(name: str, engine: str, folder: Path, workers: int, **training):
    training = {"epochs": 1, "batchSize": 2 * workers, "optimizer": "SGD", "maxGradNorm": 0} | training
    return make_job(
        "/none",
        "/none.csv",
        strategy={
            "type": "FullFineTuning",
            "learningRate": {"head": 1e-2, "backbone": 1e-2, "schedule": "Constant", "warmupRatio": 0},
        },
        training=training,
        output={"destination": f"file://{folder}/{workers}-{engine}-{name}"},
        distribution={"numNodes": workers, **ENGINES[engine]},
    )


def first_step(name: str, engine: str, folder: Path, workers: int) -> dict:
    """Train an architecture for one step under guard; return what became of it."""
    seen: dict = {"error": None}
    try:
        task = ArchitectureTask(name, 2 * workers * STEPS.get(name, 1))
        gc.collect()
        gc.freeze()  # what the library has imported for it
        run = open_run(job_of(name, engine, folder, workers), task)
        run.milestones.settle = lambda: None
        train(run)
        seen["unused"], seen["atTimes"] = run.state.unused, run.state.gradients_at_times
        run.saver.close()
        run.engine.end()
        if run.engine.rank == 0:
            shutil.rmtree(run.folder.path)
    except Exception as error:  # noqa: BLE001 - each architecture has a test that names it
        seen["error"] = f"{type(error).__name__}: {error}"[:2000]
    return seen


def watched(task, module, names, **options):
    """Find unused weights, and make sure that the model is what it was."""
    before = state_of(module)
    found = find_unused(task, module, names, **options)
    assert_same(before, state_of(module))
    return found


def all_used(*_, **__) -> Evidence:
    return Evidence(frozenset(), frozenset(), by_chance=False)


def idle_task(net: str, workers: int) -> IdleTask:
    return IdleTask(NETS[net], kind=KINDS.get((net, workers)))


def idle_job(net: str, engine: str, folder: Path, workers: int):
    training = {"epochs": 4, "batchSize": 6, "optimizer": "AdamW", "weightDecay": 0.05, "maxGradNorm": 1}
    return job_of(f"{net}-idle", engine, folder, workers, **training)


def idle(net: str, engine: str, folder: Path, workers: int) -> dict:
    """Train a net with idle weights for some epochs; return its weights and what was said of them."""
    seen: dict = {"error": None}
    run = None
    try:
        run = open_run(idle_job(net, engine, folder, workers), idle_task(net, workers))
        train(run)
        seen["unused"], seen["atTimes"] = run.state.unused, run.state.gradients_at_times
        seen["weights"] = {name: tensor.clone() for name, tensor in run.engine.weights(run.engine.shapes).items()}
        seen["checksums"] = run.engine.checksums()
        finish(run)
    except JobError as error:
        seen["error"] = f"{error.reason}: {error.message}"
    finally:
        if run:
            run.saver.close()
            run.engine.end()
    return seen


def nets_of(engine: str) -> list[str]:
    """Return the nets for two workers: DeepSpeed takes no scalars, and only DDP looks for gradients that do not come."""
    others = {"DDP": (), "FSDP": ("missing",)}.get(engine, ("missing", "scalar"))
    return [net for net in NETS if net not in others]


@contextmanager
def alone() -> Iterator[None]:
    """Be a group of one for a while, on either rank."""
    before = dict(os.environ)
    os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    yield
    torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


def main(folder: Path) -> None:
    rank, began = int(os.environ["RANK"]), time.perf_counter()
    gc.collect()
    gc.freeze()
    first: dict = {}
    nets: dict = {}
    place = folder / f"rank-{rank}"
    with alone():
        unused.find_unused = watched
        for name in ARCHITECTURES[rank::2]:
            first[f"{name} DDP 1"] = first_step(name, "DDP", place, 1)
        unused.find_unused = find_unused
    print(f"rank {rank}: alone {time.perf_counter() - began:.0f} s", flush=True)
    for name in json.loads((folder / "on-two.json").read_text()):
        unused.find_unused = all_used if name in TIMM else find_unused  # each was looked at above
        first[f"{name} DDP 2"] = first_step(name, "DDP", folder, 2)
    unused.find_unused = find_unused
    for engine in SHARDED:
        for name in DIVIDED:
            first[f"{name} {engine} 2"] = first_step(name, engine, folder, 2)
    for engine in ("DDP", *SHARDED):
        for net in nets_of(engine):
            nets[f"{net} {engine} 2"] = idle(net, engine, folder, 2)
    (folder / f"first-{rank}.json").write_text(json.dumps(first))
    torch.save(nets, folder / f"nets-{rank}.pt")
    print(f"rank {rank}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
