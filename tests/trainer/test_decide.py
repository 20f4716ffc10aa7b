"""Which evaluation is the best one, also when some gave no number."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze_api.spec.training import EarlyStoppingSpec
from unfreeze_api.tasks import task_type
from unfreeze_trainer.training.decide import History, decide

NAN = math.nan
TASK = task_type("TextClassification")
VALUES = st.lists(st.one_of(st.floats(-5, 5), st.just(math.nan), st.just(math.inf), st.just(-math.inf)), min_size=1)


def after(metric, values, stopping=None):
    """Return the last decision, and the number of the best evaluation."""
    history, best = History(), None
    for number, value in enumerate(values):
        decision = decide(history, TASK.metric(metric), value, stopping=stopping, last=False)
        history, best = decision.history, number if decision.best else best
    return decision, best


@pytest.mark.parametrize(("metric", "best"), [("accuracy", max), ("loss", min)])
@given(values=VALUES)
def test_the_best_is_the_best_number_whatever_comes_between(metric, best, values):
    numbers = [value for value in values if not math.isnan(value)]
    decision, number = after(metric, values)
    if numbers:
        assert decision.history.best == best(numbers)
        assert number == values.index(best(numbers))
    else:
        assert math.isnan(decision.history.best)
        assert number == 0


def test_what_is_no_number_is_no_improvement():
    stopping = EarlyStoppingSpec(patience=2)
    ends = [
        after("loss", values, stopping)[0].end for values in ([0.5, NAN], [0.5, NAN, NAN], [NAN] * 3, [NAN, NAN, 0.5])
    ]
    assert ends == [False, True, True, False]


def test_a_phase_ends_when_it_no_longer_improves_enough_and_says_why():
    stopping = EarlyStoppingSpec(patience=2, min_delta=0.1)
    assert not after("accuracy", [0.5, 0.55], stopping)[0].end
    decision, best = after("accuracy", [0.5, 0.55, 0.59], stopping)
    assert (decision.end, decision.best, best) == (True, True, 2), "the best of the run needs no distance"
    assert decision.why == "evaluations in a row that have not improved accuracy 0.5 by more than 0.1: 2"
    assert not after("accuracy", [0.5, 0.55, 0.61], stopping)[0].end
    assert not after("accuracy", [0.5] * 9)[0].end


def test_the_last_step_ends_a_phase_without_a_reason():
    metric = TASK.metric("loss")
    for stopping in (None, EarlyStoppingSpec(patience=1)):
        decision = decide(History(0.5, 0.5, 0), metric, 0.6, stopping=stopping, last=True)
        assert (decision.best, decision.end, decision.why) == (False, True, "")
