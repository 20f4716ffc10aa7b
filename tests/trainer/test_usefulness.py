"""Whether a model is better than always guessing one class, and where that is said."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from tests.trainer.complete import complete
from tests.trainer.interrupted import run_in
from tests.trainer.jobs import make_job
from tests.trainer.mlp import MLPTask
from unfreeze_api.tasks.base import Metric
from unfreeze_trainer.commands import show
from unfreeze_trainer.exports.report import finished_progress, read_report
from unfreeze_trainer.models.card import write_card
from unfreeze_trainer.objectives.classification import ClassificationMetrics
from unfreeze_trainer.objectives.multi_label import MultiLabelMetrics
from unfreeze_trainer.usefulness import beside_base, decided, judge, judge_numbers

LABELS = ("a", "b", "c")


def judged(hits, actual, metric="accuracy"):
    return judge(np.array(hits, dtype=float), np.array(actual, dtype=float), LABELS[: len(hits)], metric)


@pytest.mark.parametrize(
    ("hits", "actual", "better"),
    [
        ([100, 0], [100, 60], False),  # it always guesses one class
        ([0, 60], [100, 60], False),  # the other one
        ([90, 12], [100, 60], False),  # two more are chance
        ([95, 30], [100, 60], True),
        ([25, 25], [50, 50], False),  # lots
        ([27, 27, 27], [30, 30, 30], True),
        ([4, 4], [4, 4], True),
        ([2, 1], [2, 1], False),  # too few to tell
        ([0, 0], [5, 5], False),
    ],
)
def test_a_model_is_compared_with_the_best_constant_answer(hits, actual, better):
    assert judged(hits, actual).better is better


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=2, max_size=3))
def test_the_interval_is_that_of_the_samples_that_tell(cells):
    """As scipy's interval (Wilson) of the share that the model wins of what one of the two gets wrong alone."""
    hits, actual = [min(cell) for cell in cells], [max(cell) for cell in cells]
    if not sum(actual):
        return
    guess = int(np.argmax(actual))
    won, lost = sum(hits) - hits[guess], actual[guess] - hits[guess]
    low = binomtest(won, won + lost).proportion_ci(method="wilson").low if won + lost else 0
    assert judged(hits, actual).better is bool(low > 0.5)


@pytest.mark.parametrize(("won", "lost"), [(0.38, 0.0), (0.35, 0.02), (0.03, 0.0)])
def test_the_interval_holds_the_true_difference(won, lost):
    """Of 95 % of the draws of samples: of others the model would get others right that the guess gets wrong."""
    draws = np.random.default_rng(0).multinomial(300, [won, lost, 1 - won - lost], 200)
    found = [judged([155 - wrong, right], [155, 145]) for right, wrong, _ in draws]
    assert np.mean([one.gain_low <= won - lost <= one.gain_high for one in found]) >= 0.9


@pytest.mark.parametrize("metric", ["macroF1", "balancedAccuracy"])
def test_where_classes_weigh_alike_a_rare_one_may_be_worth_the_others(metric):
    hits, actual = [800, 45], [950, 50]  # an accuracy of .845, where the most frequent class has .95
    assert not judged(hits, actual).better
    told = judged(hits, actual, metric)
    assert told.better
    assert "the balanced accuracy is 0.871, that of always guessing 'a' is 0.500" in told.message
    assert not judged([950, 0], actual, metric).better
    assert not judged([2, 2], [2, 2], metric).better, "too few to tell"


def drawn_by_lot(rng, classes, samples, skill, guess):
    """Return hits and samples of each class of a model that knows a share of them, and guesses the others."""
    actual = rng.integers(classes, size=samples)
    lots = rng.choice(classes, samples, p=guess)
    hits = actual[(rng.random(samples) < skill) | (actual == lots)]
    return [np.bincount(of, minlength=classes).astype(float) for of in (hits, actual)]


@pytest.mark.parametrize(("classes", "samples"), [(2, 20), (10, 200), (60, 60), (60, 1200)])
@pytest.mark.parametrize("skill", [0.0, 0.5, 0.9])
def test_the_interval_of_balanced_accuracy_holds_the_true_one_however_many_classes_there_are(classes, samples, skill):
    """Lots among 60 classes are no better than a guess: shares that are drawn towards a half each add up to a gain."""
    rng, guess, names = np.random.default_rng(0), np.full(classes, 1 / classes), [str(one) for one in range(classes)]
    truth = skill + (1 - skill) / classes
    found = [judge(*drawn_by_lot(rng, classes, samples, skill, guess), names, "macroF1") for _ in range(200)]
    gains = [(one.gain_low + one.majority, one.gain_high + one.majority) for one in found]
    assert np.mean([low <= truth <= high for low, high in gains]) >= 0.9
    if not skill:
        assert np.mean([one.better for one in found]) <= 0.06
    else:
        assert np.mean([one.better for one in found]) >= 0.9 or samples < 60


def test_a_model_that_is_wrong_throughout_has_an_interval_that_says_so():
    names = [str(one) for one in range(60)]
    wrong = judge(np.zeros(60), np.ones(60), names, "macroF1")
    assert not wrong.better
    assert wrong.gain_high + wrong.majority < 0.2
    right = judge(np.ones(60), np.ones(60), names, "macroF1")
    assert right.better
    assert right.gain_low + right.majority > 0.8
    mixed = judge(np.array([*[1000.0] * 59, 1]), np.array([*[1000.0] * 59, 2]), names, "macroF1")
    assert mixed.gain_low + mixed.majority < 1 - 0.25 / 60, "what one of two samples says of a class is not known well"


def test_the_message_has_the_figures_and_what_to_do():
    told = judged([90, 12], [100, 60]).message
    assert told.startswith(
        "on 160 validation samples the accuracy is 0.637, that of always guessing 'a' is 0.625; the 95 %"
    )
    assert told.endswith("That may be chance: hold out more validation data, or train longer")
    assert judged([100, 0], [100, 60]).message.endswith("train longer or more of the model")
    long = judge(np.array([0.0, 0]), np.array([1.0, 0]), ["x" * 5000, "y"], "accuracy")
    assert len(long.message) < 512


def test_it_follows_from_the_sums_of_all_ranks():
    metrics = ClassificationMetrics(3)
    state = metrics.new_state()
    assert metrics.usefulness(state, LABELS, "accuracy") is None
    logits = torch.eye(3)[torch.tensor([0, 0, 1])]
    metrics.update(state, logits, {"labels": torch.tensor([0, 1, 1])})
    found = metrics.usefulness(state, LABELS, "accuracy")
    assert found == judged([1, 1, 0], [1, 2, 0])


# Several labels for each sample.


def sets(actual, predicted, metric="microF1"):
    """Judge label sets, bool of shape (samples, labels), by the sums of their metrics."""
    metrics = MultiLabelMetrics(actual.shape[1])
    state = metrics.new_state()
    metrics.update(state, torch.tensor(predicted) * 2.0 - 1, {"labels": torch.tensor(actual).float()})
    return metrics.usefulness(state, LABELS, metric)


def drawn(seed, samples=60, share=(0.6, 0.3, 0.1)):
    return np.random.default_rng(seed).random((samples, 3)) < share


@given(st.integers(0, 99), st.lists(st.booleans(), min_size=3, max_size=3))
def test_the_same_labels_for_each_sample_are_never_better_than_the_best_of_these(seed, given_labels):
    actual = drawn(seed)
    found = sets(actual, np.tile(given_labels, (len(actual), 1)))
    assert not found.better
    guesses = [
        f1_score(actual, np.tile(np.array(one), (len(actual), 1)), average="micro", zero_division=0)
        for one in itertools.product([False, True], repeat=3)
    ]
    assert found.majority == pytest.approx(max(guesses))
    assert found.gain_low <= found.gain_high


@given(st.integers(0, 99), st.integers(0, 179), st.booleans())
def test_one_label_more_that_is_right_never_speaks_against_a_model(seed, cell, turned):
    actual, said = drawn(seed), drawn(seed + 1000)
    better = said.copy()
    better.flat[cell] = actual.flat[cell]
    before, after = sets(actual, said), sets(actual, better)
    assert after.gain_low >= before.gain_low - 1e-9
    order = [2, 0, 1] if turned else [1, 0, 2]
    again = sets(actual[:, order], said[:, order])
    assert (again.better, again.gain_low) == (before.better, pytest.approx(before.gain_low))


def test_label_sets_are_compared_by_micro_f1_whatever_the_metric():
    actual = drawn(0)
    found = sets(actual, actual, "loss")
    assert (found.better, found.compared) == (True, "micro F1")
    assert found == sets(actual, actual, "macroF1")
    nothing = sets(actual, np.zeros_like(actual))
    assert not nothing.better
    assert nothing.gain_low < -nothing.majority < nothing.gain_high < 0
    assert nothing.message.startswith(
        "on 60 validation samples the micro F1 is 0.000, that of always guessing 'a' is 0."
    )
    assert not sets(actual[:1] | True, actual[:1] | True).better, "too few to tell"
    assert sets(np.zeros((3, 3), dtype=bool), actual[:3]) is None
    decision = decided(nothing, "loss", 3)
    assert (decision.answer, decision.warning) == ("NotSurely", True)
    assert decision.question == "Is the model better than always guessing the same labels?"
    assert (
        decided(judged([1, 0], [1, 1]), "accuracy", 3).question == "Is the model better than always guessing one class?"
    )


# Numbers.


def numbers(seed, share, samples=60, targets=1):
    """Return numbers and predictions that explain a share of their variance, float64 of shape (samples, targets)."""
    draw = np.random.default_rng(seed)
    predicted, rest = draw.standard_normal((2, samples, targets))
    return 5 + np.sqrt(share) * predicted + np.sqrt(1 - share) * rest, 5 + np.sqrt(share) * predicted


@pytest.mark.parametrize(("metric", "truth"), [("r2", 0.9), ("mae", 1 - 0.1**0.5)])
def test_the_interval_of_what_is_explained_holds_the_true_share(metric, truth):
    """It is one of a ratio: how far samples lie from their mean is no doubt of a model that comes near each of them."""
    found = [judge_numbers(*numbers(seed, 0.9, samples=50), metric) for seed in range(200)]
    assert np.mean([one.gain_low <= truth <= one.gain_high for one in found]) >= 0.9
    assert np.mean([one.gain_high - one.gain_low for one in found]) < 0.25
    assert np.mean([one.better for one in found]) >= 0.95
    lots = [
        judge_numbers(numbers(seed, 0.9, samples=50)[0], numbers(seed + 999, 0.1)[1][:50], metric)
        for seed in range(200)
    ]
    assert np.mean([one.better for one in lots]) <= 0.04


@given(st.integers(0, 99), st.floats(-10, 10), st.sampled_from(["rmse", "r2", "pearson", "spearman"]))
def test_the_same_number_for_each_sample_is_never_better_than_the_mean(seed, value, metric):
    actual, _ = numbers(seed, 0.5)
    found = judge_numbers(actual, np.full_like(actual, value), metric)
    assert not found.better
    assert found.gain_low + found.gain_high <= 1e-9, "nor may it be"


@pytest.mark.parametrize("metric", ["rmse", "loss", "pearson", "spearman"])
def test_numbers_are_compared_with_their_mean(metric):
    actual, predicted = numbers(0, 0.5, targets=2)
    found = judge_numbers(actual, predicted, metric)
    assert found.better
    assert found.majority == 0
    assert not judge_numbers(actual, predicted[::-1], metric).better
    order = np.random.default_rng(1).permutation(len(actual))
    again = judge_numbers(actual[order], predicted[order], metric)
    assert (again.gain_low, again.gain_high) == pytest.approx((found.gain_low, found.gain_high))
    worse = judge_numbers(actual, predicted + np.random.default_rng(2).normal(size=predicted.shape), metric)
    assert worse.gain_low < found.gain_low
    ruined = judge_numbers(actual, np.full_like(actual, np.nan), metric)
    assert (ruined.better, np.isfinite([ruined.gain_low, ruined.gain_high]).all()) == (False, True)
    assert judge_numbers(actual[:3], predicted[:3], metric) is None, "too few to tell anything"
    assert judge_numbers(np.ones((9, 1)), np.ones((9, 1)), metric) is None


@pytest.mark.parametrize("metric", ["rmse", "mae", "pearson", "spearman"])
def test_a_target_that_is_always_the_same_says_nothing(metric):
    """The mean of seven times .1 is not .1, so that their variance is not 0."""
    same = np.full((7, 1), 0.1)
    assert judge_numbers(same, same + 1e-7, metric) is None
    actual, predicted = numbers(0, 0.9)
    beside, more = np.full_like(actual, 0.1), np.full_like(actual, 0.1001)
    found = judge_numbers(np.hstack([actual, beside]), np.hstack([predicted, more]), metric)
    assert found.better
    assert found == judge_numbers(actual, predicted, metric)
    assert judge_numbers(1e200 * actual, 1e200 * predicted, metric).better, "whatever the unit"


def test_few_numbers_that_are_far_off_do_not_hide_what_mae_is_about():
    actual, predicted = numbers(0, 0.95, samples=100)
    actual[:3] += 60
    told = judge_numbers(actual, predicted, "mae")
    assert told.better
    assert decided(told, "mae", 3).question == "Is the model better than always saying the median?"
    assert not judge_numbers(actual, np.full_like(actual, np.median(actual)), "mae").better
    assert not judge_numbers(actual, np.full_like(actual, np.nan), "mae").better
    assert not judge_numbers(actual, predicted, "rmse").better


def test_what_is_compared_of_numbers_is_what_the_job_wants():
    """Ranks that are right say something, whatever their scale; squares of errors do not then."""
    actual, predicted = numbers(3, 0.9)
    told = judge_numbers(actual, 100 * predicted, "spearman")
    assert (told.better, told.compared) == (True, "Spearman correlation")
    told = judge_numbers(actual, 100 * predicted, "rmse")
    assert (told.better, told.compared) == (False, "r2")
    assert ", that of always saying the mean is 0.000; the 95 % interval of the difference is -" in told.message
    assert decided(told, "rmse", 3).question == "Is the model better than always saying the mean?"
    exact = judge_numbers(actual, predicted, "pearson")
    assert f"{np.corrcoef(actual[:, 0], predicted[:, 0])[0, 1]:.3f}" in exact.message


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("rate", "batch_size", "better"), [(1e-5, 40, False), (0.03, 4, True)])
def test_a_run_says_it_at_its_end_in_report_progress_and_terminal(tmp_path, capsys, rate, batch_size, better):
    task, seen, cards = MLPTask(dropout=0.0), [], []
    task.export = lambda module, folder, *_, usefulness, **__: (
        cards.append(usefulness),
        MLPTask.export(task, module, folder),
    )
    strategy = {"type": "FullFineTuning", "learningRate": {"head": rate, "backbone": rate, "warmupRatio": 0}}
    run = run_in(tmp_path, task=task, strategy=strategy, epochs=30, batchSize=batch_size)
    run.reporter.observers.append(seen.append)
    complete(run)
    raw = json.loads((tmp_path / "report.json").read_text())
    assert list(raw)[:3] == ["schemaVersion", "outcome", "usefulness"]
    report = read_report(tmp_path)
    assert report.usefulness.better is better
    assert cards == [report.usefulness]
    assert seen[-1].results == finished_progress(report).results
    assert report.usefulness.figures().items() <= seen[-1].results.items()
    assert (seen[-1].results["validation.gainLow"] > 0) is better
    show.closing_table(SimpleNamespace(output=SimpleNamespace(path=str(tmp_path))))
    sentence, first, *rest = capsys.readouterr().out.splitlines()
    guess = "On the validation data the model's accuracy is worse than that of always guessing one class, 0.538"
    assert sentence.startswith(guess) is not better
    assert any(line.startswith("trained for ") and line.endswith(" worker hours") for line in rest)
    assert first.startswith("no better than guessing: on 13 validation samples") is not better
    if batch_size > 22:
        warning = "spec.training.batchSize 40 is more than the 22 training samples"
        assert warning in rest[0]
        assert warning in show._warnings(tmp_path, set())[0]
        assert warning in report.warnings[0]
    else:
        assert show._warnings(tmp_path, set()) == []
        assert report.warnings == []


@pytest.mark.parametrize("worth", [None, True, False])
def test_the_card_says_it_first(tmp_path, worth):
    usefulness = (
        None
        if worth is None
        else judged([2, 1], [2, 1]).model_copy(update={"better": worth, "message": "on 9 samples"})
    )
    pins = {"base": {"files": {}}, "data": {}}
    write_card(
        tmp_path, make_job("/m", "/d.csv"), pins, library="timm", usage="pass", metrics=None, usefulness=usefulness
    )
    body = (tmp_path / "README.md").read_text().rpartition("---\n")[2]
    begins = "# job\n\n> **No better than guessing**: on 9 samples.\n\nText" if worth is False else "# job\n\nText"
    assert body.startswith(begins)


def test_a_label_is_no_markup_of_the_card(tmp_path):
    usefulness = judged([2, 1], [2, 1]).model_copy(update={"better": False, "message": "'<b>' ![x](http://y) a_b"})
    job, pins = make_job("/m", "/d.csv"), {"base": {"files": {}}, "data": {}}
    write_card(tmp_path, job, pins, library="timm", usage="pass", metrics=None, usefulness=usefulness)
    assert r"'\<b>' !\[x\](http://y) a\_b" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("better", "after", "answer"), [("Higher", 0.2, "No"), ("Higher", 0.5, "Yes"), ("Lower", 0.45, "No")]
)
def test_a_model_that_did_its_task_before_is_compared_with_its_base(better, after, answer):
    """An embedding whose rates had destroyed it ended as a success, and nothing but its metric said so."""
    found = beside_base(Metric("recallAt1", better), 0.45, after, samples=1200, step=7)
    assert (found.answer, found.warning, found.step) == (answer, True if answer == "No" else None, 7)
    assert found.message.startswith(
        f"the model's recallAt1 on 1,200 validation samples is {after:.3f}, that of its base before the first step was 0.450"
    )
    assert ("Use the base as it is" in found.message) == (answer == "No")
    told = beside_base(Metric("recallAt1", better), 0.45, after, samples=1200, step=7, new_heads=True).message
    assert ("Train longer" in told, "Use the base" in told) == (answer == "No", False), (
        "new heads of Alignment are no base"
    )
    assert [one.value for one in found.evidence] == [0.45, after]
