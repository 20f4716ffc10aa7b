"""Rare labels: weights, label smoothing, focal loss and balanced sampling are those of torch, scikit-learn and the papers."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from tests.trainer.jobs import make_job, write_csv
from tests.trainer.test_feed import Weighted
from unfreeze_api.tasks.labels import LabelOptions
from unfreeze_trainer.data.order import balanced_chances, epoch_order
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.feed import Feed
from unfreeze_trainer.objectives.classification import Classification
from unfreeze_trainer.objectives.labelled import labelled
from unfreeze_trainer.objectives.multi_label import MultiLabel
from unfreeze_trainer.objectives.targets.label_sets import LabelSets
from unfreeze_trainer.objectives.targets.labels import Labels

CELLS = ["a"] * 6 + ["b"] * 3 + ["c"]
SETS = [["a"], ["a", "b"], ["a", "c"], ["a"], []]
IDS = torch.tensor([0, 1, 2, 1, -100])
HOT = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1], [-100, -100, -100]])


def learned_of(kind, cells):
    return kind(kind.read(pa.chunked_array([cells]), "label", "here"), "here")


def single(**options):
    return Classification(learned_of(Labels, CELLS), LabelOptions(**options), "spec.task.x")


def multi(**options):
    return MultiLabel(learned_of(LabelSets, SETS), LabelOptions(labels="Multi", **options), "spec.task.x")


@pytest.fixture
def logits():
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_without_options_it_is_the_plain_cross_entropy(logits):
    assert torch.equal(single().loss(logits, {"labels": IDS}), functional.cross_entropy(logits, IDS, reduction="none"))


def test_balanced_weights_are_those_of_scikit_learn(logits):
    weights = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=np.array(CELLS))
    losses = single(class_weights="Balanced").loss(logits, {"labels": IDS})
    plain = functional.cross_entropy(logits, IDS, reduction="none")
    assert torch.allclose(losses[:4], plain[:4] * torch.tensor(weights[IDS[:4]]).float())
    assert losses[4] == 0


def test_weights_that_are_given_have_a_mean_of_one_over_the_training_data(logits):
    losses = single(class_weights_by_label={"c": 5.0, "b": 2}).loss(logits, {"labels": IDS})
    plain = functional.cross_entropy(logits, IDS, weight=torch.tensor([1.0, 2, 5]), reduction="none")
    assert torch.allclose(losses, plain * 10 / (6 + 6 + 5))


@pytest.mark.parametrize("make", [single, multi])
def test_a_weight_of_a_label_that_does_not_occur_is_an_error(make):
    with pytest.raises(
        JobError, match=r"spec\.task\.x\.classWeightsByLabel: 'cat' does not occur in the training data"
    ):
        make(class_weights_by_label={"cat": 2.0})


def test_label_smoothing_is_that_of_torch_with_weights_too(logits):
    weights = torch.tensor([10 / (3 * 6), 10 / (3 * 3), 10 / 3])
    for options, weight in (({}, None), ({"class_weights": "Balanced"}, weights)):
        losses = single(label_smoothing=0.1, **options).loss(logits, {"labels": IDS})
        plain = functional.cross_entropy(logits, IDS, weight=weight, label_smoothing=0.1, reduction="none")
        assert torch.allclose(losses, plain)


def test_the_focal_loss_is_that_of_its_paper(logits):
    losses = single(focal_loss={"gamma": 1.5}).loss(logits, {"labels": IDS})
    chance = logits.softmax(1)[range(4), IDS[:4]]
    assert torch.allclose(losses[:4], -((1 - chance) ** 1.5) * chance.log())
    assert losses[4] == 0


def test_several_labels_are_weighed_as_torch_does(logits):
    weights = torch.tensor([1 / 4, 4.0, 4.0])
    losses = multi(class_weights="Balanced").loss(logits, {"labels": HOT})
    plain = functional.binary_cross_entropy_with_logits(logits[:4], HOT[:4], pos_weight=weights, reduction="none")
    assert torch.allclose(losses[:4], plain.mean(1))
    assert losses[4] == 0
    named = multi(class_weights_by_label={"a": 0.25, "b": 4, "c": 4})
    assert torch.equal(named.loss(logits, {"labels": HOT}), losses)


def test_the_focal_loss_of_several_labels_is_that_of_its_paper(logits):
    losses = multi(focal_loss={}).loss(logits, {"labels": HOT})
    chance = torch.where(HOT == 1, logits.sigmoid(), 1 - logits.sigmoid())[:4]
    assert torch.allclose(losses[:4], (-((1 - chance) ** 2) * chance.log()).mean(1), rtol=1e-4)
    assert losses[4] == 0


def test_a_label_that_all_samples_have_weighs_as_without_weights():
    objective = MultiLabel(learned_of(LabelSets, [["a", "b"], ["a"]]), LabelOptions(class_weights="Balanced"))
    assert objective._weights.tolist() == [1, 1]


@pytest.mark.parametrize("certain", [0.0, 200.0])
@pytest.mark.parametrize(("make", "targets"), [(single, IDS), (multi, HOT)])
def test_gradients_are_finite_and_none_for_padding(make, targets, certain, logits):
    inputs = (logits + certain * torch.tensor([1.0, 0, 0])).detach().requires_grad_()
    make(focal_loss={"gamma": 0.5}).loss(inputs, {"labels": targets}).sum().backward()
    assert inputs.grad.isfinite().all()
    assert not inputs.grad[4].any()


def test_labels_are_drawn_alike_in_another_order_each_epoch():
    groups = np.repeat([0, 1, 5], [900, 90, 10])
    chances = balanced_chances(groups)
    orders = [epoch_order(0, epoch, 1000, chances) for epoch in range(3)]
    for order in orders:
        drawn = np.unique(groups[order], return_counts=True)[1]
        assert (abs(drawn - 1000 / 3) < 60).all()  # four standard deviations
    assert not np.array_equal(orders[0], orders[1])
    assert np.array_equal(orders[2], epoch_order(0, 2, 1000, chances))


class Drawn(Weighted):
    def chances(self, split):
        assert split == "train"
        return balanced_chances(np.arange(self.splits[split]) < 4)


def drawn(first: int, world_size: int) -> list[list[int]]:
    """Return the samples of each step of two epochs from a step on, in the order in which they are drawn."""
    task = Drawn([1] * 23)
    ranks = [
        Feed(task, seed=3, batch_size=5, accumulate=2, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    return [
        sorted(int(sample) for _, micros in steps for micro in micros for sample in micro.tensors["samples"])
        for steps in zip(*(feed.steps(first, 10) for feed in ranks), strict=True)
    ]


def test_what_is_drawn_depends_neither_on_workers_nor_on_where_a_run_resumed():
    whole = drawn(0, 1)
    assert [len(step) for step in whole] == [5, 5, 5, 5, 3] * 2
    assert drawn(0, 2) == drawn(0, 3) == whole
    assert drawn(7, 2) == whole[7:]


def test_a_job_asks_for_it(tmp_path):
    job = make_job("/nowhere", write_csv(tmp_path / "t.csv"), task={"textClassification": {"sampling": "Balanced"}})
    assert labelled(job.task)(learned_of(Labels, CELLS)).balances
    assert not single(sampling="Shuffled").balances
