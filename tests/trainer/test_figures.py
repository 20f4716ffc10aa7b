"""What predictions say in detail: of each class, calibration, thresholds, probable label errors; scikit-learn is the oracle."""

from __future__ import annotations

import csv

import numpy as np
import pyarrow as pa
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax
from scipy.special import softmax as scipy_softmax
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    confusion_matrix,
    f1_score,
    log_loss,
    mean_absolute_error,
    precision_recall_curve,
    precision_recall_fscore_support,
    r2_score,
    root_mean_squared_error,
)
from sklearn.model_selection import cross_val_predict

from unfreeze_api.contracts.evaluation import Evaluation
from unfreeze_trainer.exports.figures import class_rates, evaluate, files
from unfreeze_trainer.exports.intervals import intervals
from unfreeze_trainer.exports.label_issues import write_issues
from unfreeze_trainer.exports.predictions import FOLDER, About, PredictionsWriter
from unfreeze_trainer.exports.thresholds import threshold


def write(folder, split, outputs, targets, *, seen=None, part=7, columns=None, **of):
    """Write predictions, some rows at a time."""
    names = [f"class {index}" for index in range(outputs.shape[1])]
    what = About(**{"split": split, "step": 5, "kind": "OneOf", "names": names} | of)
    (folder / FOLDER).mkdir(exist_ok=True)
    with PredictionsWriter(folder / FOLDER / f"{split}.parquet", what) as file:
        for low in range(0, len(outputs), part):
            rows = slice(low, low + part)
            known = {"row": pa.array(np.arange(low, low + len(outputs[rows])) + 1)}
            known |= {name: pa.array(values[rows]) for name, values in (columns or {}).items()}
            known["label"] = what.answers.labels(targets[rows])
            file.write(known | what.answers.columns(outputs[rows], None if seen is None else seen[rows]))
    return names


def problem(rows=200, classes=4, heat=1.0, seed=0):
    """Return logits that are `heat` times too large, and labels that are as the right ones say."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (rows, classes))
    chances = scipy_softmax(logits, axis=1)
    labels = np.array([rng.choice(classes, p=row) for row in chances])
    return (logits * heat).astype(np.float32), labels


def test_figures_of_classes_are_scikit_learns(tmp_path):
    logits, labels = problem()
    labels[labels == 3] = 2  # a class that no row has
    names = write(tmp_path, "validation", logits, labels)
    found = evaluate(files(tmp_path))
    assert Evaluation.read(found.to_json()) == found
    figures, said = found.splits["validation"], logits.argmax(1)
    expected = precision_recall_fscore_support(labels, said, labels=range(4), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [getattr(one, name) for one in figures.classes] == pytest.approx(values.tolist())
    assert figures.confusion.labels == names
    assert figures.confusion.counts == confusion_matrix(labels, said, labels=range(4)).tolist()
    assert figures.confusion.pairs[0].count == max(
        count for i, row in enumerate(figures.confusion.counts) for j, count in enumerate(row) if i != j
    )
    assert figures.calibration.nll == pytest.approx(log_loss(labels, scipy_softmax(logits, axis=1), labels=range(4)))
    assert sum(one.rows for one in figures.calibration.bins) == figures.rows == 200


@pytest.mark.slow
def test_that_all_of_a_few_samples_are_right_makes_nothing_certain():
    of = np.zeros(30, dtype=int)
    right, wrong = (
        intervals(class_rates(of, said, 2, words=False), np.arange(30), shares=True) for said in (of, of + 1)
    )
    assert right["accuracy"] == (pytest.approx(0.905, abs=1e-3), 1.0)
    assert wrong["accuracy"] == (0.0, pytest.approx(0.095, abs=1e-3))
    words = intervals(class_rates(of, of, 2, words=True), np.repeat([0, 1], 15), shares=True)
    assert words["tokenAccuracy"][0] < 0.25, "words of two texts are two witnesses"


def test_a_rare_class_that_is_never_told_counts_in_draws_without_it_too():
    of, said = np.repeat([0, 1], [72, 2]), np.zeros(74, dtype=int)
    found = intervals(class_rates(of, said, 2, words=False), np.arange(74), shares=True)
    assert found["balancedAccuracy"] == (0.5, 0.5)
    assert found["macroF1"][1] < 0.51
    assert found["accuracy"][1] == 1.0


def test_of_many_classes_those_with_the_most_errors_are_confused(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(1200)
    logits = 9 * np.eye(1200, dtype=np.float32)
    wrong = rng.choice(1200, 30, replace=False)
    logits[wrong, (wrong + 1) % 1200] = 20
    write(tmp_path, "test", logits, labels, part=600)
    figures = evaluate(files(tmp_path)).splits["test"]
    assert (len(figures.classes), figures.classes_left_out) == (1000, 200)
    assert (len(figures.confusion.labels), figures.confusion.left_out) == (50, 1150)
    shown = {one.label for one in figures.classes}
    assert {f"class {index}" for index in wrong} <= shown
    assert len(evaluate(files(tmp_path)).to_json()) < 300_000


@pytest.mark.parametrize("heat", [0.4, 3.0])
def test_the_temperature_has_the_highest_likelihood(tmp_path, heat):
    logits, labels = problem(2000, heat=heat)
    write(tmp_path, "validation", logits, labels, part=900)
    write(tmp_path, "test", *problem(500, heat=heat, seed=1), part=900)

    def nll(of):
        return -np.take_along_axis(log_softmax(logits.astype(float) / of, axis=1), labels[:, None], 1).mean()

    found = evaluate(files(tmp_path))
    best = minimize_scalar(nll, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9})
    assert found.temperature == pytest.approx(best.x, rel=1e-4)
    assert found.temperature == pytest.approx(heat, rel=0.1)
    validation, test = (found.splits[name].calibration for name in ("validation", "test"))
    assert validation.calibrated_nll == pytest.approx(best.fun)
    assert test.calibrated_ece < 0.5 * test.ece, "it holds for rows that it was not chosen on"


@pytest.mark.parametrize("case", ["right", "constant", "not finite", "unseen"])
def test_what_has_no_temperature(tmp_path, case):
    logits, labels = problem(50)
    seen = None
    if case == "right":
        labels = logits.argmax(1)
    elif case == "constant":
        logits[:] = 0
    elif case == "not finite":
        logits[:] = np.nan
    else:
        seen = np.zeros(50, dtype=bool)
    write(tmp_path, "validation", logits, labels, seen=seen, unseen="class 1")
    found = evaluate(files(tmp_path))
    assert found.temperature is None
    assert found.splits["validation"].unseen == (50 if case == "unseen" else 0)
    assert "NaN" not in found.to_json()
    assert write_issues(tmp_path / "issues.csv", files(tmp_path)) <= 50


def test_thresholds_have_the_highest_f1(tmp_path):
    rng = np.random.default_rng(0)
    has = rng.random((300, 3)) < [0.1, 0.5, 0]
    logits = (rng.normal(0, 2, (300, 3)) + 2 * has - 2).astype(np.float32)
    targets = np.where(has, np.arange(3), -1)
    for split in ("validation", "test"):
        write(tmp_path, split, logits, targets, kind="AnyOf", part=100)
    chances, figures = expit(logits), evaluate(files(tmp_path)).splits["validation"]
    assert figures == evaluate(files(tmp_path)).splits["test"]
    for index, one in enumerate(figures.classes):
        assert one.f1 == pytest.approx(f1_score(has[:, index], logits[:, index] > 0, zero_division=0))
        if index == 2:
            assert one.threshold == 0.5
            continue
        precision, recall, _ = precision_recall_curve(has[:, index], chances[:, index])
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-9)).max()
        assert one.f1_at_threshold == pytest.approx(best)
        assert f1_score(has[:, index], chances[:, index] >= one.threshold) == pytest.approx(best)


@pytest.mark.parametrize(
    ("has", "chances", "expected"),
    [
        ([1, 0], [0.9, 0.1], 0.5),  # anything between does
        ([1, 1, 0], [0.3, 0.2, 0.1], 0.15),
        ([1, 0, 1], [0.7, 0.7, 0.7], 0.5),
        ([1, 0], [0.9, 0.8], 0.85),
        ([0, 0], [0.9, 0.8], 0.5),
    ],
)
def test_a_threshold_lies_between_what_it_divides(has, chances, expected):
    assert threshold(np.array(has, dtype=bool), np.array(chances, dtype=np.float32)) == pytest.approx(expected)


def test_figures_of_numbers_are_scikit_learns(tmp_path):
    rng = np.random.default_rng(0)
    actual = rng.normal(5, 3, (900, 2))
    actual[:, 1] = 7
    predicted = actual + rng.normal(0, 1, actual.shape)
    write(tmp_path, "test", predicted, actual, kind="Amounts", part=400)
    one, constant = evaluate(files(tmp_path)).splits["test"].targets
    columns = actual[:, 0], predicted[:, 0]
    assert (one.rmse, one.mae, one.r2) == pytest.approx(
        (root_mean_squared_error(*columns), mean_absolute_error(*columns), r2_score(*columns))
    )
    assert constant.r2 is None
    assert len(one.points) == 500
    predicted[3, 0] = np.nan
    write(tmp_path, "test", predicted, actual, kind="Amounts", part=400)
    found = evaluate(files(tmp_path))
    assert Evaluation.read(found.to_json()) == found
    assert found.splits["test"].targets[0].rmse is None


def listed(folder):
    with (folder / "issues.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_label_errors_are_the_first_of_the_list(tmp_path, seed):
    """5 % of the labels are flipped, in what is learned and in what is measured: at least 60 % lie in the first tenth."""
    rng = np.random.default_rng(seed)
    x, y = make_classification(1600, 20, n_informative=10, n_classes=4, class_sep=1.5, random_state=seed)
    noisy, flipped = y.copy(), rng.choice(len(y), len(y) // 20, replace=False)
    noisy[flipped] = (y[flipped] + rng.integers(1, 4, len(flipped))) % 4
    chances = cross_val_predict(LogisticRegression(max_iter=100), x, noisy, cv=3, method="predict_proba")
    right = np.mean(chances.argmax(1) == y)
    for split, rows in (("validation", slice(0, 800)), ("test", slice(800, None))):
        write(tmp_path, split, np.log(chances[rows]).astype(np.float32), noisy[rows], part=1000)
    probable = write_issues(tmp_path / "issues.csv", files(tmp_path))
    rows = listed(tmp_path)
    assert len(rows) == 1600
    places = [int(row["row"]) - 1 + 800 * (row["split"] == "test") for row in rows]
    assert sorted(places) == list(range(1600))
    first = places[:160]
    assert len(set(first) & set(flipped)) >= 0.6 * len(flipped)
    assert [row["probable"] for row in rows].count("yes") == probable
    said = [row for row, place in zip(rows, places, strict=True) if place in set(flipped) & set(first)]
    truth = [f"class {y[place]}" for place in places if place in set(flipped) & set(first)]
    assert np.mean([row["suggested"] == label for row, label in zip(said, truth, strict=True)]) > right - 0.1


def test_labels_that_are_missing_or_too_many_are_the_first_of_the_list(tmp_path):
    rng = np.random.default_rng(0)
    has = rng.random((1000, 3)) < 0.3
    logits = (rng.normal(0, 1, has.shape) + np.where(has, 3, -3)).astype(np.float32)
    flipped = rng.choice(1000, 50, replace=False)
    has[flipped, rng.integers(0, 3, 50)] ^= True
    write(tmp_path, "test", logits, np.where(has, np.arange(3), -1), kind="AnyOf", part=400)
    write_issues(tmp_path / "issues.csv", files(tmp_path))
    rows = listed(tmp_path)
    assert len({int(row["row"]) - 1 for row in rows[:100]} & set(flipped)) >= 45
    assert rows[0]["label"] != rows[0]["suggested"]


def test_numbers_that_are_far_off_are_the_first_of_the_list(tmp_path):
    actual = np.random.default_rng(0).normal(0, 1, (200, 1))
    predicted = actual.copy()
    actual[17] += 50
    write(tmp_path, "test", predicted, actual, kind="Amounts")
    assert write_issues(tmp_path / "issues.csv", files(tmp_path)) == 1
    assert listed(tmp_path)[0]["row"] == "18"


def test_words_are_named_by_their_row_and_place(tmp_path):
    logits, labels = problem(20)
    write(tmp_path, "test", logits, labels, columns={"word": np.arange(20) % 3 + 1})
    write_issues(tmp_path / "issues.csv", files(tmp_path))
    rows = listed(tmp_path)
    assert list(rows[0]) == ["split", "row", "word", "label", "suggested", "probable", "score"]
    assert all(int(row["word"]) == (int(row["row"]) - 1) % 3 + 1 for row in rows)


def test_without_predictions_there_is_nothing_to_say(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "test.parquet").write_bytes(b"PAR1")
    assert evaluate(files(tmp_path)) is None
