"""Whether a model is better than another on the same rows, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score, mean_absolute_error, r2_score, root_mean_squared_error

from unfreeze_api.contracts import budget
from unfreeze_trainer.exports.predictions import About, PredictionsWriter, about
from unfreeze_trainer.judgement.paired import Difference, by_bootstrap, by_rows
from unfreeze_trainer.judgement.said import Said, compare, compared_by
from unfreeze_trainer.judgement.worth import Comparison, Trained, against_classical, against_scratch
from unfreeze_trainer.objectives.answers import KINDS

COUNTS = st.integers(0, 60)


def rows(both, won, lost, neither):
    """Return which rows two models get right."""
    one = [True] * (both + won) + [False] * (lost + neither)
    other = [True] * both + [False] * won + [True] * lost + [False] * neither
    return np.array(one, dtype=bool), np.array(other, dtype=bool)


@pytest.mark.slow
@settings(max_examples=60)
@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_the_interval_excludes_0_where_mcnemars_exact_test_rejects(both, won, lost, neither):
    one, other = rows(both, won, lost, neither + 1)
    found = by_rows(one, other)
    rejects = won + lost > 0 and binomtest(won, won + lost).pvalue < 0.05
    assert (found.better or found.worse) == rejects
    assert found.better == (rejects and won > lost)
    assert found.low - 1e-9 <= found.gain <= found.high + 1e-9
    turned = by_rows(other, one)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    order = np.random.default_rng(0).permutation(len(one))
    assert by_rows(one[order], other[order]) == found


@pytest.mark.slow
@settings(max_examples=30)
@given(COUNTS, COUNTS, COUNTS)
def test_more_rows_that_the_first_alone_gets_right_never_speak_against_it(both, won, lost):
    before, after = by_rows(*rows(both, won, lost, 5)), by_rows(*rows(both, won + 1, lost, 4))
    assert (before.better, before.worse) <= (after.better, before.worse)
    assert not after.worse or before.worse


@pytest.mark.parametrize(
    ("won", "lost", "count"), [(0.46, 0.0, 300), (0.5, 0.01, 100), (0.05, 0.0, 60), (0.1, 0.1, 50)]
)
def test_the_interval_holds_the_true_difference(won, lost, count):
    """Of 95 % of the draws of rows: it is one of other rows, of which others would be won and lost."""
    draws = np.random.default_rng(0).multinomial(count, [won, lost, 1 - won - lost], 100)
    found = [by_rows(*rows(count - w - lo, int(w), int(lo), 0)) for w, lo, _ in draws]
    assert np.mean([one.low <= won - lost <= one.high for one in found]) >= 0.9


def test_that_two_models_are_right_on_the_same_few_rows_says_little():
    assert by_rows(*rows(9, 0, 0, 1)).high == pytest.approx(1 - 0.025**0.1)
    assert by_rows(*rows(290, 0, 0, 10)).high == pytest.approx(1 - 0.025 ** (1 / 300))


def said(kind, actual, predicted, names=("a", "b", "c")):
    return Said(kind, list(names), np.asarray(actual), np.asarray(predicted))


def test_metrics_are_scikit_learns():
    rng, whole = np.random.default_rng(1), np.ones(50)
    ids = rng.integers(0, 3, (2, 50))
    assert said("OneOf", *ids).rates(whole)["macroF1"] == pytest.approx(f1_score(*ids, average="macro"))
    sets = rng.random((2, 50, 3)) < 0.4
    found = said("AnyOf", *sets).rates(whole)
    for name, average in (("microF1", "micro"), ("macroF1", "macro")):
        assert found[name] == pytest.approx(f1_score(*sets.astype(int), average=average))
    assert found["subsetAccuracy"] == (sets[0] == sets[1]).all(axis=1).mean()
    values = rng.normal(size=(2, 50, 2))
    found = said("Amounts", *values, names=("x", "y")).rates(whole)
    for name, metric in (("rmse", root_mean_squared_error), ("mae", mean_absolute_error), ("r2", r2_score)):
        assert found[name] == pytest.approx(metric(*values))
    assert found["pearson"] == pytest.approx(np.mean([np.corrcoef(*values[..., n])[0, 1] for n in (0, 1)]))


@pytest.mark.slow
def test_errors_that_are_smaller_are_better():
    actual = np.random.default_rng(0).normal(size=(80, 1))
    near, far = (
        said("Amounts", actual, actual + np.where(np.arange(80) % 2, by, -by)[:, None], ("x",)) for by in (0.1, 1.0)
    )
    for metric in ("rmse", "mae", "r2", "pearson"):
        assert compare(near, far, metric).better, metric
        assert compare(far, near, metric).worse, metric
        assert not compare(near, near, metric).better
    assert compare(near, far, "rmse").gain == pytest.approx(0.9)


def test_the_same_rows_are_drawn_for_both():
    """Two models that err on the same rows do not differ, however their metric varies from sample to sample."""
    rates = lambda weights: {"macroF1": float(weights[:20].sum())}  # noqa: E731
    found = by_bootstrap(rates, rates, "macroF1", 40, higher=True)
    assert (found.low, found.high) == (0, 0)


def test_a_few_rows_of_a_rare_class_make_no_model_surely_better():
    actual = np.repeat([0, 1], [196, 4])
    sees, blind = (Said("OneOf", ["common", "rare"], actual, said) for said in (actual, np.zeros(200, dtype=int)))
    for metric in ("macroF1", "balancedAccuracy"):
        found = compare(sees, blind, metric)
        assert not found.better
        assert found.low < 0 < found.gain == pytest.approx(found.high, abs=0.01)
        assert "a randomisation test, p = 0.1" in found.test
        assert found.rows_to_tell > 200
        assert not compare(blind, sees, metric).worse
    same = compare(blind, blind, "macroF1")
    assert (same.low, same.high) == (pytest.approx(-0.018, abs=1e-3), pytest.approx(0.018, abs=1e-3))
    actual[:20] = 1  # 24 are no few any more
    assert compare(replace(sees, actual=actual, predicted=actual), replace(blind, actual=actual), "macroF1").better


def test_it_takes_more_rows_than_there_are_to_tell_what_these_do_not():
    assert Difference(0.6, 0.55, -0.001, 0.06, 100, "").rows_to_tell > 100
    assert Difference(0.55, 0.6, -0.06, 0.001, 100, "").rows_to_tell > 100


@pytest.mark.parametrize(
    ("kind", "metric", "compared"),
    [
        *(("OneOf", "accuracy", "accuracy"), ("OneOf", "loss", "accuracy"), ("OneOf", "mcc", "balancedAccuracy")),
        *(("AnyOf", "mAP", "macroF1"), ("AnyOf", "loss", "microF1"), ("Amounts", "spearman", "pearson")),
        *(("Amounts", "loss", "rmse"), ("Amounts", "r2", "r2")),
    ],
)
def test_models_are_compared_by_the_jobs_metric_or_what_is_next_to_it(kind, metric, compared):
    assert compared_by(kind, metric) == compared


@pytest.mark.parametrize("metric", ["r2", "pearson"])
def test_numbers_that_are_all_the_same_are_no_reason_to_doubt_a_model(metric):
    """Those that another model gives, and those of a resample that has one row again and again."""
    actual = np.array([[0.1]] * 4 + [[float(i)] for i in range(4)])
    model, same = said("Amounts", actual, actual + 1e-3, ("x",)), said("Amounts", actual, np.full((8, 1), 0.1), ("x",))
    found = compare(model, same, metric)
    assert found.better
    assert np.isfinite([found.gain, found.low, found.high]).all()


@pytest.mark.parametrize("kind", ["OneOf", "AnyOf", "Amounts"])
def test_what_a_run_has_predicted_is_read_back(tmp_path, kind):
    rng, names = np.random.default_rng(0), ["a", "b", "c"]
    outputs = rng.normal(size=(30, 3)).astype(np.float64 if kind == "Amounts" else np.float32)
    targets = {
        "OneOf": rng.integers(0, 3, 30),
        "AnyOf": np.array([[0, 2], [-1, -1], [1, -1]] * 10),
        "Amounts": rng.normal(size=(30, 3)),
    }[kind]
    answers = KINDS[kind](names)
    with PredictionsWriter(tmp_path / "validation.parquet", About(kind=kind, names=names)) as writer:
        writer.write({"row": pa.array(range(30)), "label": answers.labels(targets), **answers.columns(outputs)})
    read = Said.read(tmp_path / "validation.parquet", about(tmp_path / "validation.parquet"))
    other = Said.of(kind, names, targets, outputs)
    assert np.array_equal(read.actual, other.actual)
    assert np.array_equal(read.predicted, other.predicted)


def verdict(both, won, lost, neither, *, fitted_on=900):
    found = Comparison(by_rows(*rows(both, won, lost, neither)), "accuracy", 84, 1.25)
    name = "logistic regression on TF-IDF"
    return against_classical(found, name=name, fitted_on=fitted_on, samples=900)


def test_a_model_that_is_worth_it():
    found = verdict(70, 20, 4, 6)
    assert found.message == (
        "the model is better than a classical one: the model's accuracy is 0.900, that of logistic regression on TF-IDF 0.740"
        " (difference +0.047 to +0.246, 95 % on 100 validation samples)"
    )
    assert (found.answer, found.warning) == ("Yes", None)
    assert found.question == "Is the model better than logistic regression on TF-IDF?"
    assert found.otherwise == "an interval of the difference that holds 0"
    assert found.alternative == (
        "the trained model, without a comparison: accuracy 0.900. Logistic regression on TF-IDF was fitted on all 900 training"
        " samples in 1.2 s"
    )
    assert found.evidence[2].name.endswith(
        "20 rows are right by the first alone and 4 by the second alone: McNemar's exact p = 0.0015"
    )


def test_where_the_classical_model_is_not_worse_it_is_a_warning():
    found = verdict(80, 6, 4, 10, fitted_on=100)
    assert found.message == (
        "a classical model may be as good: the model's accuracy is 0.860, that of logistic regression on TF-IDF on 100 of 900"
        " samples, 0.840 (difference -0.048 to +0.078, 95 % on 100 validation samples)"
    )
    assert (found.answer, found.warning) == ("NotSurely", True)
    assert found.otherwise.endswith("if it stays as it is, about 1,166 validation samples")
    assert "fitted on 100 of 900 training samples" in found.alternative
    assert budget.decision(verdict(80, 6, 4, 10).info()).message == verdict(80, 6, 4, 10).message
    worse = verdict(70, 4, 20, 6)
    assert worse.message.startswith("a classical model is better: the model's accuracy is 0.740")
    assert (worse.answer, worse.warning) == ("No", True)
    same = verdict(90, 0, 0, 10)
    assert (same.answer, same.evidence[2].name.endswith("both are right on the same rows")) == ("NotSurely", True)
    assert same.otherwise.endswith("no number of samples is in sight that gives one")


def transfer(*arms, seconds=20.0, **more):
    """Return what is said of 100 samples of which the model gets 90 right; arms are (won, lost, steps, planned, seconds)."""
    trained = [
        Trained(by_rows(*rows(90 - won, won, lost, 10 - lost)), steps=steps, planned=planned, seconds=took)
        for won, lost, steps, planned, took in arms
    ]
    worst = min(trained, key=lambda one: one.difference.gain)
    found = Comparison(worst.difference, "accuracy", 84, sum(one.seconds for one in trained))
    return against_scratch(found, trained, seconds=seconds, samples=900, **more)


def test_what_transfer_is_worth_after_as_many_steps_and_as_many_seconds():
    found = transfer((55, 1, 84, 84, 10.0), (50, 2, 168, 168, 21.0))
    assert found.message == (
        "transfer is worth +0.480 accuracy (+0.344 to +0.580) at 900 training samples: 0.900 against 0.360 from random weights after"
        " as many steps (10 s, the job's own training 20 s) and 0.420 from random weights after as many seconds (168 steps)"
    )
    assert (found.answer, found.warning, found.seconds) == ("Yes", None, 31.0)
    assert found.alternative == "the pretrained weights, without a comparison: accuracy 0.900 in 20 s. One seed"
    assert [one.value for one in found.evidence] == pytest.approx([0.9, 0.36, 0.54, 0.42, 0.48])


def test_beside_a_solved_head_it_is_said_how_long_random_weights_trained():
    found = transfer((55, 1, 84, 84, 10.0), (50, 2, 168, 168, 21.0), solved=True)
    assert (
        "after training.epochs, for a solved head has no steps (10 s, the job's own training 20 s) and 0.420"
        in found.message
    )


def test_errors_of_any_size_are_told_with_digits_that_count_and_in_which_direction():
    """A manager takes a difference of +0.2 between errors of .5 and .7 for one in the wrong direction, and that of 0.000 to 0.000 for none."""
    found = Comparison(
        Difference(0.00052, 0.00071, 0.0001, 0.00028, 90, "paired bootstrap", higher=False), "rmse", 84, 1.0
    )
    message = against_classical(found, name="ridge regression on TF-IDF", fitted_on=9, samples=9).message
    assert message.endswith(
        "the model's rmse is 0.000520, that of ridge regression on TF-IDF 0.000710 (lower by +0.000100 to +0.000280, 95 % on 90"
        " validation samples)"
    )
    trained = [Trained(found.difference, steps=9, planned=9, seconds=2.0)]
    message = against_scratch(found, trained, seconds=2.0, samples=900).message
    assert message.startswith(
        "transfer makes rmse lower by +0.000190 (+0.000100 to +0.000280) at 900 training samples: 0.000520 against 0.000710"
    )


def test_random_weights_that_do_as_well_are_a_warning():
    same = transfer((6, 5, 84, 84, 19.0))
    assert same.message.startswith("random weights may do as well: transfer is worth +0.010 accuracy (-0.0")
    assert (same.answer, same.warning) == ("NotSurely", True)
    better = transfer((0, 9, 84, 84, 19.0))
    assert better.message.startswith("random weights do better: transfer is worth -0.090 accuracy (-0.")
    assert (better.answer, better.warning) == ("No", True)


def test_the_better_of_both_is_what_counts():
    assert transfer((55, 1, 84, 84, 10.0), (6, 5, 168, 168, 20.0)).answer == "NotSurely"


def test_where_the_time_was_over_before_the_steps_it_is_said():
    found = transfer((55, 1, 40, 84, 40.0))
    assert " after 40 of 84 steps, where its time was over (40 s, the job's own training 20 s)" in found.message
