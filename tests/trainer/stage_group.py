"""Jobs with stages, on one rank and on two: a stage that teaches what the job asks, and one that teaches noise at rates that ruin it."""

from __future__ import annotations

import random
from pathlib import Path
from unittest.mock import patch

import torch

from tests.trainer.complete import complete
from tests.trainer.engine_group import forget_accelerate
from tests.trainer.interrupted import events
from tests.trainer.jobs import WORDS, bert_folder, make_job
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.runs.checkpoints import Checkpoints, Identity
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.tasks.composed import ComposedTask
from unfreeze_trainer.training.run import Run
from unfreeze_trainer.training.stages import Chain, check_stages


def table(path: Path, rows: int, *, tells: bool, seed: int) -> Path:
    """Write texts of six words with labels: whether most words have an odd place in WORDS, or a coin's."""
    drawn = random.Random(seed)
    lines = []
    for _ in range(rows):
        places = [drawn.randrange(len(WORDS)) for _ in range(6)]
        label = sum(place % 2 for place in places) > 3 if tells else drawn.random() < 0.5
        lines.append(f"{' '.join(WORDS[place] for place in places)},{'ab'[label]}")
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    return path


def write_inputs(folder: Path) -> Path:
    """Write a base and three tables: of the job, of a stage that helps, of one that harms."""
    if not (folder / "bert").exists():
        bert_folder(folder / "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        table(folder / "own.csv", 80, tells=True, seed=0)
        table(folder / "help.csv", 256, tells=True, seed=1)
        table(folder / "harm.csv", 64, tells=False, seed=2)
    return folder


def stage(
    inputs: Path, name: str, *, rate: float = 1e-2, epochs: float = 4, batch: int = 16, keep: str = "IfHelps", **more
):
    rates = {"head": rate, "backbone": rate}
    return {
        "name": name,
        "keep": keep,
        "data": {"train": {"source": f"file://{inputs}/{name}.csv"}},
        "strategy": {"type": "FullFineTuning", "learningRate": rates},
        "training": {"epochs": epochs, "batchSize": batch},
    } | more


def chain_job(inputs: Path, folder: Path, stages, *, world: int = 1, **change):
    full = {"type": "FullFineTuning", "learningRate": {"head": 1e-2, "backbone": 1e-3}}
    return make_job(
        inputs / "bert",
        inputs / "own.csv",
        stages=stages,
        strategy=change.pop("strategy", full),
        training={"epochs": 1, "batchSize": 16, "checkpoint": {"everySteps": 3, "afterSuccess": "Keep"}},
        output={"destination": f"file://{folder}"},
        distribution={"numNodes": world},
        **change,
    )


def chained(job, link=None, train=lambda chain: chain.train()):
    """Be a worker of a job with stages to its end; return its run. Exports are not loaded in another process."""
    forget_accelerate()
    with patch.object(ComposedTask, "verify_export", lambda *_: None):
        check_stages(job, open_task)
        engine = open_engine(job)
        chain = Chain(job, engine, link, open_task)
        train(chain)
        task = open_task(chain.job)
        run = Run(chain.job, task, task.build_model(), engine, chain.link)
        complete(run)
        engine.end()
    return run


def trained(inputs: Path, folder: Path, stages, world: int = 1):
    """Return the decisions of a job with stages and the steps of its phases."""
    run = chained(chain_job(inputs, folder, stages, world=world))
    decisions = [(one.answer, one.step) for one in run.state.decisions if one.type == "Stage"]
    return decisions, [phase.steps for phase in run.state.phases]


def left(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights and moments of the newest checkpoint of a run folder."""
    checkpoints = Checkpoints(folder, Identity("", {}))
    files = checkpoints.load(checkpoints.steps()[-1])
    moments = {f"{name}.{key}": value for name, entry in files.moments.items() for key, value in entry.items()}
    return files.weights | moments


def resumed(job):
    """Go on with a job with stages; return the workers of the run, and the starts of its first stage."""
    run = chained(job)
    starts = [line["event"] for line in events(Path(job.output.path) / "stages/help", "start")]
    return run.engine.world_size, starts
