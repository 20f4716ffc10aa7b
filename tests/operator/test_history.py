"""The history of a training: bounded, at rest between its points, right after a step back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze_api.contracts.progress import ProgressInfo
from unfreeze_api.contracts.status import HistoryPoint
from unfreeze_operator.status.history import PARTS, extended


def at(step, total=320, loss=None, **metrics):
    return ProgressInfo(step=step, total_steps=total, loss=loss, metrics=metrics)


def after(*moments):
    history = []
    for moment in moments:
        history = extended(history, moment, "accuracy")
    return history


def test_it_keeps_loss_and_metric_of_the_first_moment_of_each_part():
    points = after(at(5, loss=2.0), at(7, loss=1.9), at(12, loss=1.5, accuracy=0.4, macroF1=0.3))
    assert points == [HistoryPoint(step=5, loss=2.0), HistoryPoint(step=12, loss=1.5, metric=0.4)]


def test_it_rests_within_a_part():
    assert after(at(12), at(13), at(19)) == after(at(12))


def test_what_a_given_up_attempt_did_beyond_the_checkpoint_goes():
    assert [point.step for point in after(at(15), at(100), at(300), at(101))] == [15, 100]


def test_nothing_is_known_before_the_first_step():
    assert after(at(0)) == []
    assert extended([HistoryPoint(step=3)], None, "accuracy") == [HistoryPoint(step=3)]


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 5000)), max_size=200))
def test_it_is_bounded_and_in_order_whatever_the_trainer_says(moments):
    history = []
    for step, total in moments:
        history = extended(history, at(step, total), "accuracy")
        assert len(history) <= PARTS + 1
        steps = [point.step for point in history]
        assert steps == sorted(set(steps))
        assert extended(history, at(step, total), "accuracy") == history


@pytest.mark.slow
@given(st.integers(1, 100_000))
def test_a_whole_training_has_a_point_in_every_part(total):
    history = []
    for step in range(1, total + 1, max(1, total // 1000)):
        history = extended(history, at(step, total), "accuracy")
    assert len(history) >= min(PARTS, total) - 1
