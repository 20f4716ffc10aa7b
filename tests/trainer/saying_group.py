"""What two ranks do for `test_saying`."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from tests.trainer.engine_group import ENGINES, open_run
from tests.trainer.jobs import make_job
from unfreeze_trainer.models import export
from unfreeze_trainer.models.plain import plain_outputs
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.loop import train

TABLES = {"CausalLM": ("decoder", "dialogues.jsonl"), "Seq2SeqLM": ("seq2seq", "sequences.jsonl")}


def job_of(folder: Path, task: str, engine: str, workers: int):
    model, table = TABLES[task]
    return make_job(
        folder / model,
        folder / table,
        task={"type": task},
        data={"test": {"source": f"file://{folder / 'held-out' / table}"}},
        training={"epochs": 1, "batchSize": 8, "evaluate": {"generate": {"maxTokens": 4, "rows": 3}}},
        distribution={"numNodes": workers, **ENGINES[engine]},
        output={"destination": f"file://{folder}/{task}-{engine}-{workers}"},
    )


@patch.object(export, "reload", plain_outputs)
def said(folder: Path, task: str, engine: str, workers: int = 2):
    """Train to the end; return the metrics of the phase and the results."""
    job = job_of(folder, task, engine, workers)
    run = open_run(job, open_task(job))
    train(run)
    finish(run)
    run.saver.close()
    return run.state.phases[0].metrics, run.reporter.results
