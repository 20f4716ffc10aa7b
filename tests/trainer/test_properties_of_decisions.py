"""What holds of every decision, whatever was measured: more evidence for an answer never turns it, and the order of the rows does not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.test_auto import SHARE, rungs
from unfreeze_api.contracts.decision import Decision
from unfreeze_api.contracts.report import Rollback
from unfreeze_api.tasks.base import Metric
from unfreeze_trainer.judgement.forgetting import NEIGHBOURHOODS, Forgotten, Measured, decided
from unfreeze_trainer.judgement.paired import Difference
from unfreeze_trainer.judgement.rungs import Next, Wanted, best_of, choose, gate
from unfreeze_trainer.judgement.said import Said, compare
from unfreeze_trainer.judgement.stages import Probed, stage_helps
from unfreeze_trainer.judgement.worth import Comparison, Trained, against_classical, against_scratch
from unfreeze_trainer.training.rollback import decided_by, rate_scale

HIGHER, LOWER = Metric("accuracy"), Metric("loss", "Lower")
GAIN, REACH, SECONDS = st.floats(-0.5, 0.5), st.floats(0, 0.3), st.floats(0, 1e4)
VALUES = st.lists(st.tuples(SHARE, SHARE), min_size=1, max_size=8)
ORDER = {"Yes": 2, "NotSurely": 1, "No": 0}


def difference(gain, reach):
    return Difference(0.5 + gain, 0.5, gain - reach, gain + reach, 100, "a test")


def worth(gain, reach):
    """Return the answers of both comparisons."""
    found = Comparison(difference(gain, reach), "accuracy", 3, 1.0)
    scratch = against_scratch(found, [Trained(found.difference, 5, 5, 1.0)], seconds=1.0, samples=100)
    return against_classical(found, name="another", fitted_on=5, samples=5).answer, scratch.answer


@given(GAIN, REACH, st.floats(0, 0.5))
def test_a_larger_gain_is_never_worth_less(gain, reach, more):
    for before, after in zip(worth(gain, reach), worth(gain + more, reach), strict=True):
        assert ORDER[after] >= ORDER[before]


@given(GAIN, REACH, st.floats(0, 0.5))
def test_a_wider_interval_never_makes_sure(gain, reach, wider):
    for before, after in zip(worth(gain, reach), worth(gain, reach + wider), strict=True):
        assert after in (before, "NotSurely")


@given(GAIN, REACH)
def test_who_wins_against_another_loses_the_other_way_round(gain, reach):
    turned = {"Yes": "No", "No": "Yes", "NotSurely": "NotSurely"}
    assert worth(-gain, reach) == tuple(turned[answer] for answer in worth(gain, reach))


def lost(value, reach, budget):
    measured = Measured(NEIGHBOURHOODS, value, value - reach, value + reach)
    return decided(Forgotten((measured,), {}, 40, anchored=True), budget=budget, step=3, seconds=1.0).answer


@given(SHARE, REACH, st.floats(0.01, 1), st.floats(0, 0.5))
def test_more_that_is_lost_and_a_smaller_budget_never_speak_for_a_model(value, reach, budget, more):
    order = {"Within": 2, "NotSurely": 1, "Broken": 0}
    before = order[lost(value, reach, budget)]
    assert order[lost(value + more, reach, budget)] <= before
    assert order[lost(value, reach, budget + more)] >= before


@given(SHARE, SHARE, st.floats(0.001, 0.3), SHARE)
def test_a_stage_that_helps_more_is_never_dropped(with_stage, without, reach, more):
    def helps(score):
        gain = score - without
        return stage_helps(
            Probed(score, without, gain - reach, gain + reach, 50, 1.0), name="one", step=3, seconds=1.0
        ).answer

    assert helps(with_stage) == "No" or helps(with_stage + more) == "Yes"
    assert helps(without) == "No", "what brings nothing is not kept"


@given(VALUES, st.integers(0, 7), st.floats(0, 1))
def test_a_rung_that_is_surer_to_do_never_makes_a_dearer_one_be_taken(found, place, more):
    climbed, probable = rungs(*(value for value, _ in found)), [sure for _, sure in found]
    surer = [min(1.0, sure + more) if number == place else sure for number, sure in enumerate(probable)]
    wanted = Wanted(HIGHER)
    assert choose(climbed, surer, wanted, step=3)[0] <= choose(climbed, probable, wanted, step=3)[0]


@given(VALUES)
def test_which_way_a_metric_goes_does_not_matter(found):
    values, probable = [round(value, 3) for value, _ in found], [sure for _, sure in found]
    turned = [round(1 - value, 3) for value in values]
    assert best_of(values, HIGHER) == best_of(turned, LOWER)
    one, other = (
        choose(rungs(*each), probable, Wanted(metric, min_gain=0.01), step=3)
        for each, metric in ((values, HIGHER), (turned, LOWER))
    )
    assert (one[0], one[1].answer) == (other[0], other[1].answer)


@given(st.tuples(SHARE, SHARE), SHARE, st.tuples(SECONDS, SECONDS), st.floats(1, 2e4), SHARE)
def test_a_gate_keeps_its_budget_and_less_to_spend_never_opens_it(values, idle, times, seconds, less):
    climbed, (takes, more) = rungs(*values), times

    def answer(following, budget):
        return gate(climbed, Next("all", following), Wanted(HIGHER, seconds=budget), idle=idle, step=3).answer

    spent = sum(rung.seconds for rung in climbed)
    if answer(takes, seconds) == "Yes":
        assert spent + takes <= seconds
        assert answer(takes, seconds + more) == answer(takes * less, seconds) == "Yes"
    else:
        assert answer(takes + more, seconds) == answer(takes, max(1e-3, seconds * less)) == "No"


@given(st.lists(st.integers(0, 4), max_size=2), st.integers(0, 4))
def test_rates_fall_with_each_rollback_and_those_of_phases_before_it_stay(phases, index):
    rollbacks = [Rollback(step=9, to=0, phase_index=phase, factor=0.3, message="") for phase in phases]
    assert rate_scale(rollbacks, index) == pytest.approx(0.3 ** sum(index >= phase for phase in phases))
    assert rate_scale(rollbacks, index + 1) <= rate_scale(rollbacks, index)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 99), st.sampled_from([("OneOf", "macroF1"), ("AnyOf", "microF1"), ("Amounts", "rmse")]))
def test_the_order_of_the_rows_does_not_matter_to_what_a_model_is_worth(seed, asked):
    kind, metric = asked
    draw = np.random.default_rng(seed)
    shape = (30,) if kind == "OneOf" else (30, 2)
    values = [draw.normal(size=shape), *(draw.normal(size=shape) for _ in range(2))]
    if kind != "Amounts":
        values = [each > 0 for each in values] if kind == "AnyOf" else [(each > 0).astype(np.int64) for each in values]
    actual, first, second = values
    order = draw.permutation(30)
    one, other = (Said(kind, ["a", "b"], actual, said) for said in (first, second))
    turned = (Said(kind, ["a", "b"], actual[order], said[order]) for said in (first, second))
    found, again = compare(one, other, metric), compare(*turned, metric)
    assert (found.low, found.high) == pytest.approx((again.low, again.high), abs=1e-12)


def test_a_run_that_goes_back_keeps_what_was_decided_about_its_stages():
    """Their steps are counted apart from the run's: that of a long stage is above any of them."""
    found = [
        Decision(type=kind, answer="Yes", question="", message="", step=step)
        for kind, step in (("Rates", 0), ("Rung", 40), ("Stage", 500), ("Trial", 60))
    ]
    assert [one.type for one in decided_by(40, found)] == ["Rates", "Rung", "Stage"]
