"""What two ranks do for `test_solver`: a solved probe before everything trains, whole and after a kill."""

from __future__ import annotations

from pathlib import Path

from tests.trainer.engine_group import ENGINES, open_run
from tests.trainer.interrupted import Killed
from tests.trainer.jobs import make_job
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.loop import train

STRATEGY = {"type": "LinearProbeThenFineTune", "solver": "Closed", "learningRate": {"head": 1e-3, "backbone": 1e-4}}


def solved(folder: Path, name: str, engine: str, world: int, kill: str = ""):
    """Train two phases; return the weights after the first one and at the end (on rank 0), steps of phases, and the decision.

    `kill` names what a start before has died in: the search for the head, or the checkpoint of its phase.
    """
    job = make_job(
        folder / "bert",
        folder / "texts.csv",
        strategy=STRATEGY,
        task={"textClassification": {"classWeights": "Balanced"}},
        training={"epochs": 1, "batchSize": 8, "checkpoint": {"everySteps": 50, "keep": 9}},
        output={"destination": f"file://{folder}/{name}"},
        distribution={"numNodes": world, **ENGINES[engine]},
    )
    if kill:
        dying = open_run(job, open_task(job))

        def die(*_, **__):
            raise Killed

        if kill == "search":
            dying.trainable.resume = die
        else:
            dying.saver.save = die
        try:
            train(dying)
        except Killed:
            dying.saver.close()
            dying.engine.end()
    run = open_run(job, open_task(job))
    assert run.state.step == 0
    found = {}
    closed = run.milestones._close_phase

    def close():
        found.setdefault("probe", run.engine.weights(run.engine.shapes))
        closed()

    run.milestones._close_phase = close
    train(run)
    run.saver.wait()
    run.saver.close()
    weights = run.engine.weights(run.engine.shapes)
    run.engine.end()
    [decision] = [one for one in run.state.decisions if one.type == "Solver"]
    return found["probe"], weights, [(phase.name, phase.steps) for phase in run.state.phases], decision
