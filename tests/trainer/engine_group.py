"""Two ranks that run the cases of `test_engines` one after the other: torchrun -m tests.trainer.engine_group OUT"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import torch

from tests.trainer.jobs import make_job
from tests.trainer.mlp import MLPTask
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.run import Run
from unfreeze_trainer.worker import train

ENGINES = {
    "DDP": {"engine": "DDP"},
    "ZeRO-1": {"engine": "DeepSpeed", "deepSpeed": {"zeroStage": 1}},
    "ZeRO-2": {"engine": "DeepSpeed", "deepSpeed": {"zeroStage": 2}},
}
_RATES = {"learningRate": {"head": 1e-2, "backbone": 5e-3, "layerDecay": 0.8}}
_HEAD_ONLY = {"learningRate": {"head": 1e-2}}
CASES = {
    "feature-extraction": ({"type": "FeatureExtraction", **_HEAD_ONLY}, {}),
    "partial": ({"type": "PartialFineTuning", "partialFineTuning": {"lastBlocks": 2}, **_RATES}, {}),
    "full": ({"type": "FullFineTuning", **_RATES}, {}),
    "probe-then-all": ({"type": "LinearProbeThenFineTune", **_RATES}, {}),
    "gradual": ({"type": "GradualUnfreezing", **_RATES}, {}),
    "gradual-accumulated": ({"type": "GradualUnfreezing", **_RATES}, {"gradientAccumulationSteps": 3}),
    "gradual-sgd-clipped": ({"type": "GradualUnfreezing", **_RATES}, {"optimizer": "SGD", "maxGradNorm": 0.1}),
    "gradual-unclipped": ({"type": "GradualUnfreezing", **_RATES}, {"maxGradNorm": 0}),
    "chain-thaw": (
        {"type": "GradualUnfreezing", "gradualUnfreezing": {"order": "ChainThaw", "stepsPerPhase": 3}}
        | {"learningRate": _RATES["learningRate"] | {"schedule": "SlantedTriangular", "scope": "Phase"}},
        {},
    ),
    "gradual-groups": (
        {"type": "GradualUnfreezing", "gradualUnfreezing": {"groups": [["norm", "layer.1"], ["layer.0"]]}}
        | {"learningRate": _RATES["learningRate"] | {"schedule": "OneCycle", "rewarmSteps": 3}},
        {},
    ),
    "bitfit": ({"type": "BitFit", **_HEAD_ONLY}, {}),
    # 22 samples by 7: the last batch has one sample, which leaves the second rank without any.
    "gradual-empty-shard": ({"type": "GradualUnfreezing", **_RATES}, {"batchSize": 7}),
}
NAMES = ("moved", "stuck", "apart")


def job_of(case: str, engine: str, folder: Path):
    strategy, training = CASES[case]
    training = {"epochs": 6, "batchSize": 5, "weightDecay": 0.05} | training
    place = {"destination": f"file://{folder}/{engine}-{case}"}
    distribution = {"numNodes": 2, **ENGINES[engine]}
    return make_job(folder, folder, strategy=strategy, training=training, output=place, distribution=distribution)


def pods_job(run_folder: Path, port: int):
    """A job of two pods with dropout, whose steps, evaluations and checkpoints fall on different numbers."""
    job = make_job(
        "/none",
        "/none.csv",
        strategy={
            "type": "GradualUnfreezing",
            "gradualUnfreezing": {"epochsPerPhase": 12, "blocksPerPhase": 2},
            **_RATES,
        },
        training={"epochs": 80, "batchSize": 5, "checkpoint": {"everySteps": 4}, "metric": "loss"},
        output={"destination": f"file://{run_folder}"},
        distribution={"numNodes": 2, "resourcesPerNode": {"requests": {"cpu": "1"}}},
    )
    place = {"rendezvous_host": "127.0.0.1", "rendezvous_port": port or 29400}
    return job.model_copy(update={"distribution": job.distribution.model_copy(update=place)})


def forget_accelerate():
    """Accelerate takes one engine per process for granted."""
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state()
    PartialState._reset_state()
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)


def run_case(case: str, engine_name: str, folder: Path):
    forget_accelerate()
    job, task = job_of(case, engine_name, folder), MLPTask(dropout=0.0)
    engine = open_engine(job)
    run = Run(job, task, task.build_model(), engine, None)
    seen = {}
    finish, run.finish = run.finish, lambda: None
    train(run)
    seen["parameters"] = {name: tensor.detach().clone() for name, tensor in engine.module.named_parameters()}
    seen["phases"] = [phase.name for phase in run.state.phases]
    seen["metrics"] = run.state.metrics
    if case == "full":
        finish()
        seen["results"] = run._results
    engine.end()
    return seen


def guard_case(name: str, engine_name: str, folder: Path):
    """Break what an engine could break, return what the guard says."""
    forget_accelerate()
    job, task = job_of("partial", engine_name, folder / name), MLPTask(dropout=0.0)
    engine = open_engine(job)
    run = Run(job, task, task.build_model(), engine, None)
    parameters = dict(engine.module.named_parameters())
    step = engine.step

    def broken():
        kept = parameters["norm.weight"].detach().clone(), parameters["norm.bias"].detach().clone()
        step()
        with torch.no_grad():
            if name == "moved":
                parameters["layers.0.weight"].view(-1)[3] += 1e-6
            if name == "stuck":
                parameters["norm.weight"].copy_(kept[0])
                parameters["norm.bias"].copy_(kept[1])
            if name == "apart" and engine.rank == 1:
                parameters["head.bias"][1] += 1e-6

    engine.step = broken
    try:
        train(run)
    except JobError as error:
        return f"{error.reason}: {error.message}"
    finally:
        engine.end()
    return "nothing"


def pods_case(folder: Path):
    """The uninterrupted run that `test_agents` compares a much disturbed one with."""
    forget_accelerate()
    job, task = pods_job(folder / "pods", 0), MLPTask()
    engine = open_engine(job)
    run = Run(job, task, task.build_model(), engine, None)
    train(run)
    engine.end()


def main(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    gc.collect()
    gc.freeze()  # as a worker does: each phase change collects
    pods_case(folder)
    for engine in ENGINES:
        for case in CASES:
            torch.save(run_case(case, engine, folder), folder / f"{engine}-{case}-{rank}.pt")
        said = {name: guard_case(name, engine, folder) for name in NAMES}
        torch.save(said, folder / f"{engine}-guard-{rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
