"""What two ranks do for `test_engines`, one case after the other, in one process group: see `ranks`."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist

from tests.trainer.complete import complete
from tests.trainer.held import held_bytes, weights_of
from tests.trainer.jobs import bert_folder, make_job, merge, write_csv
from tests.trainer.mlp import SAMPLES, MLPTask
from tests.trainer.traps import TRAPS
from unfreeze_trainer.engines import base, bits, open_engine
from unfreeze_trainer.engines.base import compute_dtype, persistent_buffers
from unfreeze_trainer.engines.deepspeed import DeepSpeedEngine
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.run import Run

ENGINES = {
    "DDP": {"engine": "DDP"},
    "FSDP": {"engine": "FSDP"},
    "ZeRO-0": {"engine": "DeepSpeed", "deepSpeed": {"zeroStage": 0}},
    "ZeRO-1": {"engine": "DeepSpeed", "deepSpeed": {"zeroStage": 1}},
    "ZeRO-2": {"engine": "DeepSpeed", "deepSpeed": {"zeroStage": 2}},
    "ZeRO-3": {"engine": "DeepSpeed", "deepSpeed": {"zeroStage": 3}},
}
OFFLOADED = {
    "ZeRO-2-offload": {"engine": "DeepSpeed", "deepSpeed": {"zeroStage": 2, "offload": "Optimizer"}},
    "ZeRO-3-offload": {"engine": "DeepSpeed", "deepSpeed": {"zeroStage": 3, "offload": "OptimizerAndParameters"}},
}
SHARDED = ("ZeRO-2", "ZeRO-3", "FSDP")
_RATES = {"learningRate": {"head": 1e-2, "backbone": 5e-3, "layerDecay": 0.8}}
_HEAD_ONLY = {"learningRate": {"head": 1e-2}}
_GRADUAL = {"type": "GradualUnfreezing", "gradualUnfreezing": {"stepsPerPhase": 3}, **_RATES}
_PROBE = {"type": "LinearProbeThenFineTune", **_RATES}
STRATEGIES = {
    "feature-extraction": ({"type": "FeatureExtraction", **_HEAD_ONLY}, {}),
    "partial": ({"type": "PartialFineTuning", "partialFineTuning": {"lastBlocks": 2}, **_RATES}, {}),
    "full": ({"type": "FullFineTuning", **_RATES}, {}),
    "probe-then-all": (_PROBE, {}),
    "gradual": (_GRADUAL, {}),
    "chain-thaw": (
        {"type": "GradualUnfreezing", "gradualUnfreezing": {"order": "ChainThaw", "stepsPerPhase": 2}}
        | {"learningRate": _RATES["learningRate"] | {"schedule": "SlantedTriangular", "scope": "Phase"}},
        {},
    ),
    "gradual-groups": (
        {"type": "GradualUnfreezing", "gradualUnfreezing": {"groups": [["norm", "layer.1"], ["layer.0"]]}}
        | {"learningRate": _RATES["learningRate"] | {"schedule": "OneCycle", "rewarmSteps": 3}},
        {},
    ),
    "bitfit": ({"type": "BitFit", **_HEAD_ONLY}, {}),
}
RECIPES = {
    "gradual-sgd-clipped-accumulated": (
        _GRADUAL,
        {"optimizer": "SGD", "maxGradNorm": 0.1, "gradientAccumulationSteps": 3},
    ),
    # 22 samples by 7: the last batch has one sample, which leaves the second rank without any.
    "gradual-tied-unclipped-empty-shard": (_GRADUAL, {"batchSize": 7, "epochs": 4, "maxGradNorm": 0}),
    # Each rank's share of a batch has its own statistics; one sample would have none.
    "gradual-batchnorm": (_GRADUAL, {"batchSize": 8, "epochs": 5}),
    # Each block's first forward pass is a frozen one under mixed precision.
    "gradual-dropout-bfloat16": (_GRADUAL, {"precision": "BFloat16"}),
    # The first factor overflows.
    "gradual-float16": (_GRADUAL, {"precision": "Float16"}),
    # One sample, so one step of each epoch, on one of the ranks.
    "gradual-nonfinite": (_GRADUAL, {}),
    "gradual-compiled": (_GRADUAL, {"compile": True}),
    "probe-then-all-compiled": (_PROBE, {"compile": True}),
    # Layers of a BERT with an adapter that trains and weights that do not.
    "gradual-lora": (
        _GRADUAL | {"gradualUnfreezing": {"blocksPerPhase": 2, "stepsPerPhase": 2}},
        {"epochs": 2, "gradientCheckpointing": True},
    ),
}
CASES = STRATEGIES | RECIPES
# Stage 3 is not compiled; what is offloaded takes the same steps elsewhere.
MATRIX = [(engine, case) for engine in ENGINES for case in CASES if engine != "ZeRO-3" or "compiled" not in case]
MATRIX += [(engine, case) for engine in OFFLOADED for case in ("gradual", "gradual-lora", "gradual-float16")]
BY_SHARE = ("batchnorm", "float16")
"""Ends of the names of cases in which what a rank computes depends on its share of the batch."""
LORA = {"adapter": {"type": "LoRA", "lora": {"r": 2, "loraDropout": 0}}}


def write_inputs(folder: Path):
    bert_folder(folder / "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    write_csv(folder / "texts.csv")


def job_of(case: str, engine: str, folder: Path, **change):
    strategy, training = CASES[case]
    training = {"epochs": 3, "batchSize": 5, "weightDecay": 0.05, "evaluate": {"everySteps": 1000}} | training
    training = {"precision": "Float32"} | training  # Auto is BFloat16 on many accelerators
    place = {"destination": f"file://{folder}/{engine}-{case}"}
    distribution = {"numNodes": 2, **(ENGINES | OFFLOADED)[engine]}
    spec = {"strategy": strategy, "training": training, "output": place, "distribution": distribution}
    spec |= LORA if "lora" in case else {}
    return make_job(folder / "bert", folder / "texts.csv", **merge(spec, change))


def task_of(case: str, job):
    if "lora" in case:
        return open_task(job)
    shape = {"norm": case.endswith("batchnorm"), "tied": "tied" in case}
    shape |= {"broken": [5]} if case.endswith("nonfinite") else {}
    return MLPTask(dropout=0.2 if "dropout" in case else 0.0, **shape)


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
        training={"epochs": 40, "batchSize": 5, "checkpoint": {"everySteps": 4}, "metric": "loss"},
        output={"destination": f"file://{run_folder}"},
        distribution={"numNodes": 2, "resourcesPerNode": {"requests": {"cpu": "1"}}},
    )
    place = {"rendezvous_host": "127.0.0.1", "rendezvous_port": port or 29400}
    return job.model_copy(update={"distribution": job.distribution.model_copy(update=place)})


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """Say yes to Float16 on a CPU, which jobs may not ask for: it shows that losses are scaled rightly."""
    return torch.float16 if precision == "Float16" else compute_dtype(precision, device)


@contextmanager
def small_scale() -> Iterator[None]:
    """Have a small model on CPUs go through what large ones go through on accelerators."""
    with (
        # Biases stay whole between steps, weights do not: both ways of stage 3 in one small model.
        patch.object(DeepSpeedEngine, "persistence_threshold", 16),
        patch.object(base, "compute_dtype", dtype_of),
        # What it makes of a layer is the same on every engine, and takes its time: see test_memory_savers.
        patch.object(torch, "compile", partial(torch.compile, backend="aot_eager")),
        # It runs a compiler, and says of each operation but one that it could be built where there is none.
        patch("deepspeed.ops._probe_compatible_ops", side_effect=AssertionError("nobody asks what could be compiled")),
    ):
        yield


def forget_accelerate():
    """Accelerate takes one engine per process for granted."""
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state()
    PartialState._reset_state()


def open_run(job, task) -> Run:
    forget_accelerate()
    return Run(job, task, task.build_model(), open_engine(job), None)


@small_scale()
def run_case(case: str, engine_name: str, folder: Path):
    from torch import _dynamo as dynamo
    from torch._dynamo.utils import counters

    job = job_of(case, engine_name, folder)
    run = open_run(job, task_of(case, job))
    engine, seen = run.engine, {}
    counters.clear()
    dynamo.reset()  # layers that an engine before has compiled
    train(run)
    engine.sync_buffers()
    seen["weights"] = {name: tensor.clone() for name, tensor in engine.weights(engine.shapes).items()}
    seen["weights"] |= {name: tensor.clone() for name, tensor in persistent_buffers(engine.module).items()}
    seen["checksums"], seen["shapes"] = engine.checksums(), dict(engine.shapes)
    seen["compiled"] = {"graphs": counters["stats"]["unique_graphs"], "breaks": sum(counters["graph_break"].values())}
    seen["phases"] = [phase.name for phase in run.state.phases]
    seen["metrics"] = run.state.metrics
    seen["skipped"] = run.state.skipped_steps
    if case == "full":
        finish(run)
        seen["results"] = run.reporter.results
    engine.end()
    return seen


@small_scale()
def guard_case(name: str, engine_name: str, folder: Path):
    """Break what an engine could break, return what the guard says."""
    run = open_run(job_of("partial", engine_name, folder / name), MLPTask(dropout=0.0))
    engine = run.engine
    step = engine.step

    def whole(*names):
        return engine.broadcast_object({key: tensor.clone() for key, tensor in engine.weights(names).items()})

    def broken():
        kept = whole("norm.weight", "norm.bias")
        step()
        if name == "moved":
            weights = whole("layers.0.weight")
            weights["layers.0.weight"].view(-1)[3] += 1e-6
            engine.load_weights(weights)
        if name == "stuck":
            engine.load_weights(kept)
        if name == "apart":
            weights = whole("head.bias")
            weights["head.bias"][1] += 1e-6 * engine.rank
            engine.load_weights(weights)

    engine.step = broken
    try:
        train(run)
    except JobError as error:
        return f"{error.reason}: {error.message}"
    finally:
        engine.end()
    return "nothing"


@small_scale()
def trap_case(trap: str, engine_name: str, folder: Path):
    """Train the head, then everything, without what the engine does about a trap; return what the job ends with."""
    run = open_run(job_of("probe-then-all", engine_name, folder / trap), MLPTask(dropout=0.0))
    TRAPS[trap][0](run)
    try:
        train(run)
    except JobError as error:
        return f"{error.reason}: {error.message}"
    except (IndexError, RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        run.engine.end()
    return "nothing"


@small_scale()
def diverged_case(engine_name: str, folder: Path):
    """Train on samples whose gradients are never finite; return what the job ends with, and whether a weight has moved."""
    task = MLPTask(dropout=0.0, broken=range(SAMPLES["train"]))
    run = open_run(job_of("full", engine_name, folder / "diverged", training={"epochs": 5}), task)
    before = run.engine.checksums()
    try:
        train(run)
    except JobError as error:
        return f"{error.reason}: {error.message}", not torch.equal(before, run.engine.checksums())
    finally:
        run.engine.end()
    return "nothing", None


@small_scale()
def rates_case(engine_name: str, folder: Path):
    """Train at rates that destroy the net, and at those that the run ends with; return rollbacks, and how far the weights are apart."""

    def end(rate: float, name: str) -> Run:
        strategy = {"learningRate": {"head": rate, "backbone": rate}}
        training = {"epochs": 3, "batchSize": 5, "evaluate": {"everySteps": 5}}
        job = job_of("full", engine_name, folder / name, strategy=strategy, training=training)
        run = open_run(job, MLPTask(dropout=0.0))
        train(run)
        run.saver.wait()
        return run

    first = end(3.0, "destroyed")
    weights = first.engine.weights(list(first.engine.shapes))
    rollbacks, factor = first.state.rollbacks, first.state.rollbacks[-1].factor
    first.engine.end()
    second = end(3.0 * factor, "lower")
    others = second.engine.weights(list(second.engine.shapes))
    apart = max((float((weights[name] - tensor).abs().max()) for name, tensor in others.items()), default=0.0)
    second.engine.end()
    apart = float(second.engine.all_reduce(torch.tensor(apart), dist.ReduceOp.MAX))
    return {"rollbacks": len(rollbacks), "to": rollbacks[-1].to, "apart": apart}


class Seen(BaseException):
    """Ends a run that has shown what it was asked for."""


@small_scale()
def exchanges_case(engine_name: str, folder: Path):
    """Return the reductions over ranks of a micro batch that is not a step's last, and of one that is."""
    run = open_run(job_of("gradual-sgd-clipped-accumulated", engine_name, folder / "exchanges"), MLPTask(dropout=0.0))
    engine, backward, seen = run.engine, run.engine.backward, {True: [], False: []}

    def watched(loss, *, last):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            backward(loss, last=last)
        seen[last] += [event.name for event in profile.events() if event.name.startswith("gloo:")]
        if last:
            raise Seen

    engine.backward = watched
    try:
        train(run)
    except Seen:
        engine.end()
    return {last: [name for name in names if "reduce" in name] for last, names in seen.items()}


@small_scale()
def memory_case(case: str, engine_name: str, folder: Path, each: float):
    """Return for each phase (parameters that train, least bytes held at a step after its first beside the weights).

    The least, since gloo's threads let go of a buffer some time after the ranks have met, on a busy machine much later: it is
    looked again until no more is held than `each` bytes for a parameter that trains, and 16 KB for everything else.
    """
    gc.collect()
    gc.freeze()
    place = {"destination": f"file://{folder}/{engine_name}-{case}-memory"}
    job = job_of(case, engine_name, folder, output=place)
    run = open_run(job, MLPTask(dropout=0.0, width=192) if case != "gradual-lora" else task_of(case, job))
    engine, measured, step = run.engine, {}, run.engine.step
    data = [] if case == "gradual-lora" else [*run.task.x.values(), *run.task.y.values()]
    data.append(bits._weights(engine.device))  # the guard's table, once a process

    def measuring():
        if run.state.phase_steps:
            trains = run.trainable.parameters
            least = measured.get(run.state.phase_index, (trains, float("inf")))[1]
            for _ in range(200):
                least = min(least, held_bytes(beside=[*weights_of(engine.module), *data]))
                if not engine.any_rank(least > each * trains + 16384):
                    break
            measured[run.state.phase_index] = trains, least
        step()

    engine.step = measuring
    train(run)
    engine.end()
    run.saver.close()
    total = sum(shape.numel() for shape in engine.shapes.values())
    return {
        "phases": list(measured.values()),
        "after": held_bytes(beside=[*weights_of(engine.module), *data]),
        "total": total,
    }


@small_scale()
def pods_case(folder: Path):
    """The uninterrupted run that `test_agents` compares a much disturbed one with."""
    run = open_run(pods_job(folder / "pods", 0), MLPTask())
    complete(run)
    run.engine.end()
