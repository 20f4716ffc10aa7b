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
    assert run.forgetting._base is not None
    places = run.forgetting._base.places
    train(run)
    run.saver.wait()
    found = run.forgetting.measure(run.state)
    run.engine.barrier()
    run.saver.close()
    run.engine.end()
    assert found is not None
    return places, {one.gauge.name: one.value for one in found.gauges}, dict(found.alike)
