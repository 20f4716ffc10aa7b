"""What ranks do for `test_own_type`: they train a base whose files hold half precision, kept so and in float32."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from deepspeed import comm
from safetensors.torch import load_file, save_file

from tests.trainer.engine_group import ENGINES, open_run
from tests.trainer.interrupted import Killed, kill_at
from tests.trainer.jobs import make_job, merge
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.engines.deepspeed import DeepSpeedEngine
from unfreeze_trainer.estimates.trace import trace
from unfreeze_trainer.models.own_type import held, own_types
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.loop import train

LORA = {"adapter": {"type": "LoRA", "lora": {"r": 2, "loraDropout": 0}}}
CASES: dict[str, dict[str, Any]] = {
    "head": {"strategy": {"type": "FeatureExtraction"}},
    "bitfit": {"strategy": {"type": "BitFit"}},
    "lora": LORA,
    "probe-lora": LORA | {"strategy": {"type": "LinearProbeThenFineTune"}},
    "gradual": {
        "strategy": {
            "type": "GradualUnfreezing",
            "gradualUnfreezing": {"groups": [["layer.1"], ["layer.0"]], "stepsPerPhase": 2},
        }
    },
    "lora-bfloat16": LORA | {"training": {"precision": "BFloat16"}},
    "lora-checkpointing": LORA | {"training": {"gradientCheckpointing": True}},
}


def halve(folder: Path, half: torch.dtype = torch.bfloat16, *, but: str = "nothing") -> Path:
    """Write a folder's weights in half precision, those aside whose names hold `but`."""
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        save_file(
            {name: tensor if but in name else tensor.to(half) for name, tensor in tensors.items()},
            file,
            metadata={"format": "pt"},
        )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": str(half).removeprefix("torch.")}))
    return folder


def job_of(case: str, engine: str, folder: Path, name: str, **change: Any):
    spec = {
        "strategy": {"learningRate": {"head": 5e-2, "backbone": 1e-2}},
        "training": {"epochs": 3, "batchSize": 6, "evaluate": {"everySteps": 1000}},
        "output": {"destination": f"file://{folder}/{engine}-{case}-{name}"},
        "distribution": {"numNodes": 2, **ENGINES[engine]},
    }
    return make_job(folder / "bert", folder / "texts.csv", **merge(merge(spec, CASES[case]), change))


@patch.object(DeepSpeedEngine, "persistence_threshold", 32)
def trained(case: str, engine: str, folder: Path, *, keeps: bool) -> dict[str, Any]:
    """Train a case; return weights, and which of them lay in half precision at the start and at the end."""
    job = job_of(case, engine, folder, "kept" if keeps else "whole")
    with own_types(wanted=keeps), patch.object(comm, "broadcast", wraps=comm.broadcast) as sent:
        run = open_run(job, open_task(job))
    before, places = held(run.engine.module), _places(run.engine.module)
    train(run)
    run.engine.sync_buffers()
    found = {"before": before, "after": held(run.engine.module), "metrics": run.state.metrics, "sent": sent.call_count}
    after = _places(run.engine.module)
    found["moved"] = [name for name in found["after"] if after[name] != places[name]]
    found["weights"] = {name: tensor.float() for name, tensor in run.engine.weights(run.engine.shapes).items()}
    run.saver.close()
    run.engine.end()
    return found


def _places(module: torch.nn.Module) -> dict[str, int]:
    return {name: parameter.data_ptr() for name, parameter in module.named_parameters()}


def trained_kept(case: str, engine: str, folder: Path) -> dict[str, Any]:
    return trained(case, engine, folder, keeps=True)


def trained_whole(case: str, engine: str, folder: Path) -> dict[str, Any]:
    return trained(case, engine, folder, keeps=False)


def resumed(case: str, engine: str, folder: Path) -> None:
    """Begin with float32, be cut off behind a checkpoint, and go on with what the files hold."""
    place = {"output": {"destination": f"file://{folder}/{engine}-{case}-resumed"}}
    job = job_of(case, engine, folder, "resumed", training={"checkpoint": {"everySteps": 2}}, **place)
    for keeps in (False, True):
        with own_types(wanted=keeps):
            run = open_run(job, open_task(job))
        if not keeps:
            kill_at(run, 5)
        else:
            assert run.state.step == 4
            assert held(run.engine.module)
        with suppress(Killed):
            train(run)
        run.saver.close()
        run.engine.end()


def trace_to(job: ResolvedJob, file: Path) -> int:
    """Estimate a job; write the bytes of weights in each phase, and those of each type at the start."""
    found = trace(job, open_task(job))
    file.write_text(json.dumps([[phase.weights for phase in found.phases], found.weights_by_dtype]))
    return 0
