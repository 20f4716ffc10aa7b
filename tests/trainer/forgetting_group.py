"""What two ranks do for `test_forgetting`: they look at a base, train it, and look again."""

from __future__ import annotations

from pathlib import Path

from tests.trainer.engine_group import ENGINES, open_run
from tests.trainer.jobs import make_job
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.loop import train

RATES = {"learningRate": {"head": 1e-3, "backbone": 1e-3}}


def looked(engine: str, folder: Path, nodes: int):
    """Return the features of the base, and what each gauge says at the end."""
    job = make_job(
        folder / "bert",
        folder / "texts.csv",
        strategy={"type": "FullFineTuning", **RATES},
        training={"epochs": 2, "batchSize": 8},
        distribution={"numNodes": nodes, **ENGINES[engine]},
        output={"destination": f"file://{folder}/{engine}-{nodes}"},
        evidence={"forgetting": {"budget": 0.1}},
    )
    run = open_run(job, open_task(job))
    places = run.forgetting.base.places
    train(run)
    run.saver.wait()
    found = run.forgetting.measure(run.state)
    run.engine.barrier()
    run.saver.close()
    run.engine.end()
    assert found is not None
    return places, {one.gauge.name: one.value for one in found.gauges}, dict(found.alike)


def guarded(engine: str, folder: Path, nodes: int, wanted: dict | None):
    """Train under a guard; return the weights of rank 0, and what the guard has done."""
    job = make_job(
        folder / "bert",
        folder / "texts.csv",
        strategy={"type": "FullFineTuning", **RATES},
        training={"epochs": 2, "batchSize": 8, "evaluate": {"everySteps": 4}},
        distribution={"numNodes": nodes, **ENGINES[engine]},
        output={"destination": f"file://{folder}/guarded-{engine}-{nodes}-{wanted is None}"},
        **({"evidence": {"forgetting": wanted}} if wanted else {}),
    )
    run = open_run(job, open_task(job))
    train(run)
    run.saver.wait()
    weights = run.engine.weights({*run.engine.shapes})
    run.engine.barrier()
    run.saver.close()
    run.engine.end()
    state = run.state
    return weights, [state.pull.strength, float(state.corrections), float(state.replayed)]
