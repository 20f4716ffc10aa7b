"""Auto on two ranks, and on one: the cases of `test_auto`."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.trainer.engine_group import ENGINES
from tests.trainer.jobs import make_job
from tests.trainer.mlp import CLASSES, FEATURES, MLPTask
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.run import Run

SIZES = {"train": 240, "validation": 120, "test": 60}
TRAINING = {"epochs": 6, "batchSize": 16, "weightDecay": 0, "checkpoint": {"everySteps": 10}}
RATES = {"head": 3e-2, "backbone": 1e-2}


class Points(MLPTask):
    """Points whose labels the frozen network tells, or which it makes the same of all: its first layer passes nothing on."""

    splits = SIZES

    def __init__(self, _job=None, *, blind: bool, told: bool = False) -> None:
        super().__init__(dropout=0.0)
        self.blind, self.told = blind, told
        generator = torch.Generator().manual_seed(3)
        self.x = {name: torch.randn(count, FEATURES, generator=generator) for name, count in SIZES.items()}
        truth = torch.randn(FEATURES, CLASSES, generator=generator)
        self.y = {name: (x @ truth).argmax(dim=1) for name, x in self.x.items()}
        if not blind:
            module = super().build_model().module.eval()
            with torch.no_grad():
                module.head.weight.copy_(10 * torch.randn(module.head.weight.shape, generator=generator))
                scores = {name: module(x) for name, x in self.x.items()}
            scores = {
                name: (found - scores["train"].mean(0)) / scores["train"].std(0) for name, found in scores.items()
            }
            for name, found in scores.items():
                top = found.topk(2).values
                clear = torch.nonzero(top[:, 0] - top[:, 1] > 0.3).flatten()
                self.x[name] = self.x[name][clear.repeat(len(found))[: len(found)]]
                self.y[name] = found.argmax(dim=1)[clear.repeat(len(found))[: len(found)]]

    def raw(self, split, samples):
        """Return a word for each sample, which tells its label, or says nothing."""
        targets = self.y[split][samples].numpy()
        return ((f"word{label if self.told else ''}",) for label in targets), targets

    def build_model(self):
        loaded = super().build_model()
        if self.blind:
            with torch.no_grad():
                loaded.module.layers[0].weight.zero_()
        return loaded


def run_of(folder: Path, *, blind: bool, told=False, auto=None, engine="DDP", world=1, link=None, **training) -> Run:
    job = make_job(
        "/none",
        "/none.csv",
        strategy={"type": "Auto", "learningRate": RATES, "auto": auto or {}},
        training=TRAINING | training,
        output={"destination": f"file://{folder}"},
        distribution={"numNodes": world, **ENGINES[engine]},
    )
    task = Points(blind=blind, told=told)
    return Run(job, task, task.build_model(), open_engine(job), link)


def learned(folder: Path, *, probe=60, min_gain=0.02, **more) -> Run:
    """Return a run whose head learns all that there is in so many epochs, and whose gate is open nevertheless."""
    from tests.trainer.engine_group import forget_accelerate

    forget_accelerate()
    keep = {"everySteps": 100, "keep": 50, "afterSuccess": "Keep"}
    rungs = [{"type": "FeatureExtraction", "epochs": probe}, {"type": "FullFineTuning", "epochs": 4}]
    run = run_of(folder, blind=False, auto={"minGain": min_gain, "rungs": rungs}, checkpoint=keep, **more)
    asked = run.ladder._gate

    def open_gate():
        found = asked()
        best = run.state.rungs[-1].best
        best.metrics = best.metrics | {"loss": 0.0}  # there is no lower one
        return found and found.model_copy(update={"answer": "Yes"})

    run.ladder._gate = open_gate
    return run


def tried(folder: Path, world: int):
    """Train the rungs of `learned`; return decisions, the answer of the trial with its evidence, and what each rung came to."""
    run = learned(folder, world=world, probe=20, min_gain=0.1)
    train(run)
    run.saver.wait()
    run.ladder.choose()
    run.saver.close()
    run.engine.end()
    decided = [(one.step, one.type, one.answer) for one in run.state.decisions]
    [trial] = [one for one in run.state.decisions if one.type == "Trial"]
    rungs = [(rung.best.step, rung.steps, round(rung.best.value, 6)) for rung in run.state.rungs]
    return (
        decided,
        trial.message,
        [(one.name, round(one.value, 5)) for one in trial.evidence],
        rungs,
        run.state.best.step,
    )


def trained(folder: Path, engine: str, world: int, blind: bool):
    """Train and export; return decisions without what they cost, the step of the best weights, and sums of all bits."""
    from tests.trainer.engine_group import forget_accelerate

    forget_accelerate()
    run = run_of(folder, blind=blind, engine=engine, world=world)
    train(run)
    finish(run)
    run.saver.close()
    decided = [(one.step, one.type, one.answer) for one in run.state.decisions]
    return decided, run.state.best.step, round(run.state.best.value, 6)
