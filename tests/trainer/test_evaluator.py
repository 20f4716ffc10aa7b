"""An evaluator needs an engine, a task and its samples, and nothing of a run."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.objectives.base import IGNORED
from unfreeze_trainer.objectives.classification import ClassificationMetrics
from unfreeze_trainer.training.evaluator import Evaluator

LABELS = torch.tensor([0, 1, 1, 1])


def evaluator_of(batches, *, check_stop=lambda: None, ranks: int = 1):
    """Each rank has the same batches; a sample's logits are its inputs."""
    module = nn.Dropout()
    engine = SimpleNamespace(
        module=module,
        rank=0,
        world_size=ranks,
        sync_buffers=lambda: None,
        to_device=lambda batch: batch,
        autocast=nullcontext,
        all_reduce=lambda sums: sums.mul_(ranks),
        gather_rows=lambda rows: rows.repeat(ranks, 1),
    )
    task = SimpleNamespace(
        metrics=ClassificationMetrics(2),
        answers=None,
        labels=["no", "yes"],
        splits={"test": 4},
        forward=lambda module, batch: module(batch["x"]),
    )
    feed = SimpleNamespace(evaluation=lambda split: iter(batches if split == "test" else ()))
    return module, Evaluator(engine, task, feed, metric="accuracy", check_stop=check_stop, resume=module.train)


def batch(predicted: list[int], labels=LABELS) -> dict[str, torch.Tensor]:
    return {"x": nn.functional.one_hot(torch.tensor(predicted), 2).float(), "labels": labels}


def test_sums_of_all_ranks_and_batches_are_measured_without_dropout():
    module, evaluator = evaluator_of([batch([0, 1, 1, 1]), batch([0, 1, 0, 0])], ranks=2)
    measured = evaluator.measure("test")
    assert measured.metrics["accuracy"] == 6 / 8
    assert measured.usefulness.message.startswith("on 16 validation samples the accuracy is 0.750")
    assert module.training, "what trains goes on"


def test_it_asks_in_between_whether_to_stop():
    asked = []
    evaluator_of([batch([0, 1, 1, 1])] * 9, check_stop=lambda: asked.append(True))[1].measure("test")
    assert len(asked) == 2


def test_a_split_of_which_no_sample_can_be_read_is_an_error():
    nothing = batch([0, 0, 0, 0], torch.full((4,), IGNORED))
    with pytest.raises(JobError, match=r"spec\.data\.test: none of the 4 samples can be read"):
        evaluator_of([nothing])[1].measure("test")
