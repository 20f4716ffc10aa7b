"""What two ranks do for `test_adapter_engines`: they train every adapter on every kind of engine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

from tests.trainer.engine_group import ENGINES, open_run
from tests.trainer.interrupted import Killed, kill_at
from tests.trainer.jobs import make_job, merge
from tests.trainer.test_adapters import TEXT
from unfreeze_api.adapters.peft import SHARED
from unfreeze_trainer.engines.deepspeed import DeepSpeedEngine
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.loop import train

KINDS = ("DDP", "FSDP", "ZeRO-2", "ZeRO-3")
# What differs in options alone, for which an engine has no eye.
ALIKE = ("rslora", "gaussian", "orthogonal", "patterns", "pissa-rslora", "ia3-paper", "prompt-random", "prompt-text")
BESIDE = {
    "adapter": {"type": "LoRA", "lora": {"r": 4, "loraDropout": 0}, "baseWeights": "ByStrategy"},
    "strategy": {
        "type": "GradualUnfreezing",
        "gradualUnfreezing": {"groups": [["pooler", "layer.1"], ["layer.0"]], "stepsPerPhase": 1},
        "learningRate": {"head": 5e-2, "backbone": 5e-2},
    },
}
CASES = {name: {"adapter": adapter} for name, adapter in TEXT.items() if name not in ALIKE} | {"beside": BESIDE}
QUANTIZED = ("Int8", "NF4")
CASES["experts"] = {"adapter": TEXT["lora"]}
CASES |= {kind: {"adapter": TEXT["lora"], "model": {"quantization": {"type": kind}}} for kind in QUANTIZED}
# Its scale starts to move when its matrices have.
CASES["DELORA"]["training"] = {"epochs": 3}
RESUMED = [
    *((case, "DDP") for case in ("adalora", "ia3", "prompt", "pfeiffer", "dora", "experts")),
    ("NF4", "DDP"),
    ("dora", "ZeRO-3"),
]


def engines_of(case: str):
    if case in QUANTIZED:
        return ["DDP"]
    if case == "adalora":
        return ["DDP", "ZeRO-0"]  # it needs whole gradients
    return [kind for kind in KINDS if kind != "FSDP" or case not in SHARED]


def job_of(case: str, engine: str, folder: Path, **change):
    spec = {
        "strategy": {"learningRate": {"head": 5e-2}},
        "training": {"epochs": 1, "batchSize": 6, "optimizer": "SGD", "evaluate": {"everySteps": 100}},
        "output": {"destination": f"file://{folder}/{engine}-{case}"},
        "distribution": {"numNodes": 2, **ENGINES[engine]},
    }
    return make_job(
        folder / ("mixtral" if case == "experts" else "bert"),
        folder / "texts.csv",
        **merge(merge(spec, CASES[case]), change),
    )


# Biases stay whole between steps, weights do not.
small_scale = patch.object(DeepSpeedEngine, "persistence_threshold", 32)


@small_scale
def trained_case(case: str, engine: str, folder: Path):
    """Return the weights that a training ends with; rank 0 alone has them."""
    job = job_of(case, engine, folder)
    run = open_run(job, open_task(job))
    train(run)
    weights = {name: tensor.clone() for name, tensor in run.engine.weights(run.engine.shapes).items()}
    run.saver.close()
    run.engine.end()
    return weights


@small_scale
def resumed_case(case: str, engine: str, folder: Path) -> None:
    """Train undisturbed, and once more, cut off after a step behind a checkpoint."""
    training = {"epochs": 2, "optimizer": "AdamW", "checkpoint": {"everySteps": 2}}
    for name in ("whole", "cut", "cut"):
        place = folder / f"{engine}-{case}-{name}"
        job = job_of(case, engine, folder, training=training, output={"destination": f"file://{place}"})
        run = open_run(job, open_task(job))
        if name == "cut" and not run.state.step:
            kill_at(run, 4)
        with suppress(Killed):
            train(run)
        run.saver.close()
        run.engine.end()
