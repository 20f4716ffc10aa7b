"""What a run's end holds in memory for a validation split of many rows and ten classes:

python -m tests.trainer.many_rows ROWS FOLDER

Prints the peak of resident memory before and after, in MiB, as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import torch

from tests.trainer.jobs import make_job
from tests.trainer.mlp import MLPTask
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.exports.evaluation import write_evaluation
from unfreeze_trainer.exports.figures import files
from unfreeze_trainer.feed import Feed
from unfreeze_trainer.objectives.answers import OneOf
from unfreeze_trainer.objectives.classification import ClassificationMetrics
from unfreeze_trainer.training.evaluator import Evaluator
from unfreeze_trainer.training.predictions import Predictions

CLASSES = 10


class Many(MLPTask):
    """Samples whose logits are drawn as they are asked for; nothing of them lies in memory."""

    labels = tuple(f"class {number}" for number in range(CLASSES))
    answers = OneOf(labels)

    def __init__(self, rows):
        self.splits = {"train": 8, "validation": rows}
        self.metrics = ClassificationMetrics(CLASSES)

    def batches(self, _, batches, **__):
        for indices in batches:
            rng = np.random.default_rng(indices[0] if len(indices) else 0)
            logits = torch.from_numpy(rng.normal(0, 2, (max(1, len(indices)), CLASSES)).astype(np.float32))
            labels = (logits + torch.from_numpy(rng.gumbel(size=logits.shape))).argmax(1)
            yield {"x": logits, "labels": labels if len(indices) else torch.tensor([-100])}

    def known(self, _, samples, **__):
        return {"row": pa.array(samples + 1), "label": self.answers.labels(samples % CLASSES)}

    def forward(self, _, batch):
        return batch["x"]


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(rows: int, folder: Path) -> None:
    job = make_job("/none", "/none.csv", training={"batchSize": 512}, output={"destination": f"file://{folder}"})
    task, engine = Many(rows), open_engine(job)
    generation = SimpleNamespace(
        aside=lambda name: folder / f".{name}",
        commit=lambda aside, final: (final.parent.mkdir(exist_ok=True), aside.replace(final)),
    )
    feed = Feed(task, seed=0, batch_size=512, accumulate=1, rank=0, world_size=1)
    engine.module, engine.sync_buffers = torch.nn.Identity(), lambda: None
    evaluator = Evaluator(engine, task, feed, metric="accuracy", check_stop=lambda: None, resume=lambda: None)
    before = peak()
    measured = evaluator.measure("validation")
    at_evaluation = peak()
    Predictions(job, task, engine, SimpleNamespace(path=folder, generation=generation)).write(
        "validation", measured.kept, 1
    )
    del measured
    at_write = peak()
    evaluation = write_evaluation(folder, generation)
    assert evaluation.splits["validation"].rows == rows
    assert len(files(folder)) == 1
    print(json.dumps({"before": before, "evaluation": at_evaluation, "write": at_write, "after": peak()}))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
