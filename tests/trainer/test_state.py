"""Which evaluation is the best one, also when some gave no number."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze_api.spec.training import EarlyStoppingSpec
from unfreeze_api.tasks import task_type
from unfreeze_trainer.runs.state import State

VALUES = st.lists(st.one_of(st.floats(-5, 5), st.just(math.nan), st.just(math.inf), st.just(-math.inf)), min_size=1)


def after(metric, values, stopping=None):
    state = State()
    for step, value in enumerate(values):
        state.step, state.metrics = step, {metric: value}
        state.compare(task_type("TextClassification").metric(metric), stopping=stopping, end=False)
    return state


@pytest.mark.parametrize(("metric", "best"), [("accuracy", max), ("loss", min)])
@given(values=VALUES)
def test_the_best_is_the_best_number_whatever_comes_between(metric, best, values):
    numbers = [value for value in values if not math.isnan(value)]
    state = after(metric, values)
    if numbers:
        assert state.best.value == best(numbers)
        assert state.best.step == values.index(best(numbers))
    else:
        assert math.isnan(state.best.value)
        assert state.best.step == 0


def test_what_is_no_number_is_no_improvement():
    stopping = EarlyStoppingSpec(patience=2)
    assert not after("loss", [0.5, math.nan], stopping).phase_ended
    assert after("loss", [0.5, math.nan, math.nan], stopping).phase_ended
    assert after("loss", [math.nan, math.nan, math.nan], stopping).phase_ended
    assert not after("loss", [math.nan, math.nan, 0.5], stopping).phase_ended
