"""Metrics equal scikit-learn's, in one sum or in many, with and without rows of padding."""

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    matthews_corrcoef,
    roc_auc_score,
)

from unfreeze_api.contracts import budget
from unfreeze_trainer.objectives.base import IGNORED
from unfreeze_trainer.objectives.classification import ClassificationMetrics
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.objectives.multi_label import MultiLabelMetrics
from unfreeze_trainer.objectives.regression import RegressionMetrics
from unfreeze_trainer.objectives.tagging import TagMetrics
from unfreeze_trainer.objectives.targets import Targets
from unfreeze_trainer.training.meter import Meter


@pytest.mark.slow
@given(data=st.data(), classes=st.integers(2, 6), n=st.integers(1, 60), workers=st.integers(1, 4))
def test_sums_of_workers_equal_scikit_learn(data: st.DataObject, classes: int, n: int, workers: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    labels, logits = rng.integers(classes, size=n), rng.normal(size=(n, classes)).astype(np.float32)
    result = over_workers(ClassificationMetrics(classes), labels, logits, workers)
    predictions = logits.argmax(1)
    probabilities = torch.from_numpy(logits).double().softmax(1).numpy()
    assert result["accuracy"] == pytest.approx(accuracy_score(labels, predictions))
    assert result["macroF1"] == pytest.approx(f1_score(labels, predictions, average="macro"))
    recalls = [np.mean(predictions[labels == c] == c) for c in np.unique(labels)]
    assert result["balancedAccuracy"] == pytest.approx(np.mean(recalls))
    if set(predictions) <= set(labels):  # scikit-learn warns otherwise
        assert result["balancedAccuracy"] == pytest.approx(balanced_accuracy_score(labels, predictions))
    assert result["loss"] == pytest.approx(log_loss(labels, probabilities, labels=range(classes)), rel=1e-5)
    assert result["mcc"] == exactly(matthews_corrcoef(labels, predictions))
    scores = probabilities[:, 1] if classes == 2 else probabilities
    assert result["brier"] == exactly(brier_score_loss(labels, scores, labels=range(classes)))
    bins = np.minimum(np.ceil(probabilities.max(1) * 15).astype(int), 15)
    distances = [
        abs(sum((predictions == labels)[bins == b]) - probabilities.max(1)[bins == b].sum()) for b in set(bins)
    ]
    assert result["ece"] == exactly(sum(distances) / n)
    areas = [
        roc_auc_score(labels == c, probabilities[:, c])
        for c in ([1] if classes == 2 else range(classes))
        if 0 < sum(labels == c) < n
    ]
    assert result.get("auroc") == (exactly(np.mean(areas)) if areas else None)
    if classes > 2 and len(areas) == classes:
        assert result["auroc"] == exactly(roc_auc_score(labels, probabilities, multi_class="ovr"))


@pytest.mark.slow
@given(data=st.data(), width=st.integers(2, 6), n=st.integers(1, 60), workers=st.integers(1, 4))
def test_sums_of_workers_equal_scikit_learn_with_several_labels(
    data: st.DataObject, width: int, n: int, workers: int
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    labels = (rng.random((n, width)) < data.draw(st.sampled_from([0.05, 0.3]))).astype(np.float32)
    logits = rng.integers(-9, 10, size=(n, width)).astype(np.float32)  # many are equal
    result = over_workers(MultiLabelMetrics(width), labels, logits, workers)
    predictions, options = (logits > 0).astype(np.float32), {"zero_division": 0}
    assert result["microF1"] == exactly(f1_score(labels, predictions, average="micro", **options))
    assert result["macroF1"] == exactly(f1_score(labels, predictions, average="macro", **options))
    assert result["subsetAccuracy"] == accuracy_score(labels, predictions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label that no sample has
        assert result["mAP"] == exactly(average_precision_score(labels, logits))
    probabilities = torch.from_numpy(logits).double().sigmoid().numpy()
    losses = [log_loss(labels[:, c], probabilities[:, c], labels=[0, 1]) for c in range(width)]
    assert result["loss"] == pytest.approx(np.mean(losses), rel=1e-5, abs=1e-6)


def exactly(value: float) -> Any:
    """Compare to the last digits, which depend on the order of a sum."""
    return pytest.approx(value, rel=1e-12, abs=1e-14)


def over_workers(metrics: Metrics, targets: np.ndarray, logits: np.ndarray, workers: int) -> dict[str, float]:
    """Return what workers with uneven shares measure; one without samples gets a row of padding, which must not count."""
    states, rows = [], []
    for rank in range(workers):
        mine = np.arange(rank, len(targets), workers)
        y = targets[mine] if len(mine) else np.full_like(targets[:1], IGNORED)
        x = logits[mine] if len(mine) else np.ones_like(logits[:1])
        states.append(metrics.new_state())
        batch = {"labels": torch.from_numpy(y)}
        metrics.update(states[-1], torch.from_numpy(x), batch)
        rows.append(metrics.rows(torch.from_numpy(x), batch))
    return metrics.compute(torch.stack(states).sum(0), torch.cat(rows))


def test_what_compares_samples_is_left_out_where_there_is_nothing_to_compare() -> None:
    metrics = ClassificationMetrics(3)
    result = over_workers(metrics, np.array([1, 1]), np.eye(3, dtype=np.float32)[:2], 1)
    assert [*result] == [name for name in metrics.names if name != "auroc"]
    assert np.isfinite([*result.values()]).all()
    same, other = np.array([1, 1]), np.array([0, 1])
    assert metrics.undefined(Targets(other, other, other)) == {}
    assert "all have the same" in metrics.undefined(Targets(same, same, same))["auroc"]


def test_rows_of_more_samples_than_memory_has_room_for_are_not_gathered() -> None:
    metrics = MultiLabelMetrics(1000)
    assert metrics.gathers(16777)
    assert not metrics.gathers(16778)
    many = np.zeros(16778, dtype=np.int64)
    assert "16,778 samples x 2,000 numbers" in metrics.undefined(Targets(many, many, many))["mAP"]


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


def test_the_ranks_meet_at_the_first_step_of_a_phase_however_quick_those_before_were() -> None:
    meter = Meter(SimpleNamespace(device=torch.device("cpu"), world_size=1, all_reduce=lambda tensor: tensor), None)
    loss = torch.tensor(1.0)
    meter.pass_seconds = 60.0
    for _ in range(2):
        meter.add(loss, 1, 0, 1)
        met = meter.after_step()
    assert (met, meter._interval > 100) == (False, True), "steps of a head alone"
    assert meter.after_step(due=True)
    meter.enter(3.0)
    assert meter.work_seconds == 60.0, "nobody knows better by now"
    meter.add(loss, 1, 0, 1)
    assert meter.after_step(), "a request to stop is heard"
    assert 0 < meter.work_seconds < 60.0


def test_metrics_are_as_many_for_ten_thousand_classes_as_for_two() -> None:
    found = []
    for classes in (2, 10_000):
        metrics = ClassificationMetrics(classes)
        state = metrics.new_state()
        outputs, batch = torch.randn(4, classes), {"labels": torch.arange(4) % classes}
        metrics.update(state, outputs, batch)
        found.append(metrics.compute(state, metrics.rows(outputs, batch)))
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
    kinds = {ClassificationMetrics, MultiLabelMetrics, RegressionMetrics, TagMetrics}
    assert kinds <= {*Metrics.__subclasses__()}
    for kind in Metrics.__subclasses__():
        assert 0 < len(kind.names) <= budget.MAX_METRICS
        assert all(name[0].islower() and name.isalnum() for name in kind.names)
