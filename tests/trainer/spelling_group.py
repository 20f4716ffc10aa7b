"""What two ranks do for `test_spelling`."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from tests.trainer.engine_group import open_run
from tests.trainer.jobs import make_job
from unfreeze_trainer.models import export
from unfreeze_trainer.models.plain import plain_outputs
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.loop import train

LORA = {"type": "LoRA", "lora": {"r": 2, "loraDropout": 0}}


def job_of(folder: Path, name: str, *, workers: int = 2, **change):
    return make_job(
        folder / "base",
        folder / "clips" / "clips.jsonl",
        task={"type": "SpeechRecognition"},
        training={"epochs": 2, "batchSize": 6, "optimizer": "SGD", "weightDecay": 0, "metric": "wer"},
        strategy={"learningRate": {"head": 1e-2}},
        distribution={"numNodes": workers},
        output={"destination": f"file://{folder}/{name}"},
        **change,
    )


@patch.object(export, "reload", plain_outputs)
def trained(folder: Path, name: str, change: dict):
    """Train, export and load it; return the weights before the export, sums of all bits and the metrics."""
    job = job_of(folder, name, **change)
    run = open_run(job, open_task(job))
    train(run)
    weights = {key: tensor.clone() for key, tensor in run.engine.weights(run.engine.shapes).items()}
    sums, metrics = run.engine.checksums(), run.state.metrics
    finish(run)
    run.saver.close()
    return weights, sums, metrics
