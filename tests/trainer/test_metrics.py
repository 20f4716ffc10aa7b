"""Metrics equal scikit-learn's, in one sum or in many, with and without rows of padding."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss

from unfreeze_api.contracts import budget
from unfreeze_trainer.objectives.base import IGNORED
from unfreeze_trainer.objectives.classification import ClassificationMetrics
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.objectives.regression import RegressionMetrics
from unfreeze_trainer.training.meter import Meter


@given(data=st.data(), classes=st.integers(2, 6), n=st.integers(1, 60), workers=st.integers(1, 4))
def test_sums_of_workers_equal_scikit_learn(data: st.DataObject, classes: int, n: int, workers: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    labels, logits = rng.integers(classes, size=n), rng.normal(size=(n, classes)).astype(np.float32)
    metrics = ClassificationMetrics(classes)
    states = []
    for rank in range(workers):
        state = metrics.new_state()
        mine = np.arange(rank, n, workers)
        # A worker without samples gets a row of padding, which must not count.
        y = torch.from_numpy(labels[mine]) if len(mine) else torch.tensor([IGNORED])
        x = torch.from_numpy(logits[mine]) if len(mine) else torch.randn(1, classes)
        metrics.update(state, x, {"labels": y})
        states.append(state)
    result = metrics.compute(torch.stack(states).sum(0))
    predictions = logits.argmax(1)
    probabilities = torch.from_numpy(logits).double().softmax(1).numpy()
    assert result["accuracy"] == pytest.approx(accuracy_score(labels, predictions))
    assert result["macroF1"] == pytest.approx(f1_score(labels, predictions, average="macro"))
    recalls = [np.mean(predictions[labels == c] == c) for c in np.unique(labels)]
    assert result["balancedAccuracy"] == pytest.approx(np.mean(recalls))
    if set(predictions) <= set(labels):  # scikit-learn warns otherwise
        assert result["balancedAccuracy"] == pytest.approx(balanced_accuracy_score(labels, predictions))
    assert result["loss"] == pytest.approx(log_loss(labels, probabilities, labels=range(classes)), rel=1e-5)


def test_no_samples_have_no_metrics() -> None:
    metrics = ClassificationMetrics(3)
    assert metrics.compute(metrics.new_state()) == {}


def test_the_loss_shows_again_after_one_that_was_not_finite():
    alone = SimpleNamespace(device=torch.device("cpu"), world_size=1, all_reduce=lambda tensor: tensor)
    meter, seen = Meter(alone, None), []
    for loss in (2.0, torch.nan, 4.0):
        meter._interval = 1
        meter.add(torch.tensor(loss), 2, 0, 2)
        assert meter.after_step()
        seen.append(meter.loss)
    assert seen == pytest.approx([1.0, torch.nan, 2.0], nan_ok=True)


def test_the_loss_that_is_shown_is_that_of_a_unit():
    alone = SimpleNamespace(device=torch.device("cpu"), world_size=1, all_reduce=lambda tensor: tensor)
    meter = Meter(alone, None)
    meter.add(torch.tensor(6.0), 2, 0, 12)
    assert meter.after_step()
    assert meter.loss == 0.5


def test_metrics_are_as_many_for_ten_thousand_classes_as_for_two() -> None:
    found = []
    for classes in (2, 10_000):
        metrics = ClassificationMetrics(classes)
        state = metrics.new_state()
        metrics.update(state, torch.randn(4, classes), {"labels": torch.arange(4) % classes})
        found.append(metrics.compute(state))
    assert [*found[0]] == [*found[1]] == [*ClassificationMetrics.names]
    assert budget.metrics(found[1]) == found[1]


@pytest.mark.parametrize("names", [("f1.cat",), ("f1/cat", "accuracy"), ("x" * 64,), tuple(f"f1{n}" for n in range(9))])
def test_figures_of_each_class_cannot_be_declared(names: tuple[str, ...]) -> None:
    with pytest.raises(TypeError, match=r"PerClass\.names has no place for"):
        type("PerClass", (ClassificationMetrics,), {"names": names})


def test_nor_computed_without_being_declared() -> None:
    class PerClass(ClassificationMetrics):
        def _compute(self, state: torch.Tensor) -> dict[str, float]:
            return super()._compute(state) | {"f1.cat": 1.0}

    metrics = PerClass(2)
    state = metrics.new_state()
    metrics.update(state, torch.randn(2, 2), {"labels": torch.tensor([0, 1])})
    with pytest.raises(ValueError, match=r"PerClass does not name f1\.cat"):
        metrics.compute(state)


def test_every_task_measures_by_declared_metrics() -> None:
    kinds = [ClassificationMetrics, RegressionMetrics, *ClassificationMetrics.__subclasses__()]
    assert {*Metrics.__subclasses__()} <= {*kinds}
    for kind in Metrics.__subclasses__():
        assert 0 < len(kind.names) <= budget.MAX_METRICS
        assert all(name[0].islower() and name.isalnum() for name in kind.names)
