"""An evaluator needs an engine, a task and its samples, and nothing of a run."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.modes import to_evaluation
from unfreeze_trainer.objectives.base import IGNORED
from unfreeze_trainer.objectives.classification import ClassificationMetrics
from unfreeze_trainer.training.evaluator import Evaluator
from unfreeze_trainer.training.looks import evaluating

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


@pytest.mark.slow  # a model is built
def test_what_a_model_keeps_of_its_weights_in_evaluation_mode_is_made_anew():
    """LeViT's biases, between looks that set the modes of a model's parts back themselves, and evaluations."""
    from transformers import LevitConfig, LevitForImageClassification

    sizes = {"image_size": 32, "hidden_sizes": [16, 16, 16], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1]}
    torch.manual_seed(0)
    model = LevitForImageClassification(LevitConfig(**sizes, key_dim=[8, 8, 8], num_labels=2)).train()
    picture, seen = torch.randn(1, 3, 32, 32), []
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
        for enter in (evaluating, evaluating, lambda module: nullcontext(to_evaluation(module))):
            for name, parameter in model.named_parameters():
                if name.endswith("attention_biases"):
                    parameter.normal_(0, 3)
            with enter(model):
                logits = model(picture).logits
            again = LevitForImageClassification(model.config).eval()
            again.load_state_dict(model.state_dict())
            assert torch.allclose(again(picture).logits, logits, rtol=1e-3)
            seen.append(logits)
    assert not torch.allclose(seen[0], seen[1], rtol=1e-2)
    assert not torch.allclose(seen[1], seen[2], rtol=1e-2)
