"""What two ranks do for `test_solver`: a solved probe before everything trains, whole and after a kill."""

from __future__ import annotations

from pathlib import Path

from tests.trainer.engine_group import ENGINES, open_run
from tests.trainer.interrupted import Killed
from tests.trainer.jobs import make_job
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.meter import StopRequested
from unfreeze_trainer.training.run import Run

STRATEGY = {"type": "LinearProbeThenFineTune", "solver": "Closed", "learningRate": {"head": 1e-3, "backbone": 1e-4}}


def solved(folder: Path, name: str, engine: str, world: int, before: str = ""):
    """Train two phases; return the weights after the first one and at the end (on rank 0), steps of phases, and the decision.

    `before` names how a start before has ended: asked to stop in the search, or killed at the checkpoint of the probe.
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
    if before:
        _end_early(open_run(job, open_task(job)), before)
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


def _end_early(run: Run, how: str) -> None:
    def die(*_, **__):
        raise Killed

    def stop(activity):
        if activity.startswith("looking for the strength"):
            raise StopRequested

    if how == "killed":
        run.saver.save = die
    else:
        run.work._tell = stop
    try:
        train(run)
    except Killed:
        pass
    except StopRequested:  # as the worker has it
        run.milestones.save()
        run.saver.wait()
    run.saver.close()
    run.engine.end()
