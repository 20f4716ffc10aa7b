"""Trainings that end before the model has learned what there is: said where the losses show it, and nowhere else."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.complete import complete
from tests.trainer.interrupted import run_in
from unfreeze_trainer.judgement.phases import Evaluated, too_short
from unfreeze_trainer.training.history import CurveFile

TAIL = (1e-3, 5e-4, 1e-6)
"""A rate that comes down."""


def told(losses, training, rates=TAIL, *, searched=False):
    """What there is to say after evaluations ten steps apart, of a phase that begins at step 5."""
    found = [
        Evaluated(15 + 10 * number, rate, loss_of_training, loss)
        for number, (rate, loss_of_training, loss) in enumerate(zip(rates, training, losses, strict=True))
    ]
    return too_short(found, first_step=5, metric="accuracy", searched=searched)


def test_a_loss_that_still_falls_for_what_is_left_of_the_rate_says_that_more_steps_are_worth_it():
    found = told((1.58, 1.48, 1.45), (1.71, 1.58, 1.48))
    assert found.warning
    assert (found.type, found.answer, found.step) == ("TooShort", "Yes", 35)
    assert found.message == (
        "the training was short: its last evaluation is its best one, the validation loss still fell from 1.480 to 1.450 at the end, and the training loss,"
        " 1.480, is not far below it: train for more epochs, or with higher rates, which spec.strategy.learningRate.rates: Auto finds"
    )
    # of each unit of rate and step .03 / 2.5e-3, of which there were 10e-3 + 7.5e-3 + 2.5e-3
    assert found.evidence[2].value == pytest.approx(0.24, rel=1e-2)
    assert "Auto" not in told((1.58, 1.48, 1.45), (1.71, 1.58, 1.48), searched=True).message


@pytest.mark.parametrize(
    ("losses", "training", "why"),
    [
        ((0.9, 0.5, 0.49), (1.1, 0.6, 0.3), "samples are learned by heart"),
        ((0.9, 0.5, 0.51), (1.1, 0.6, 0.5), "the loss was lower before"),
        ((0.9, 0.5, 0.4999), (1.1, 0.6, 0.5), "it has come to rest"),
        ((0.9, 0.5), (1.1, 0.6), "two evaluations say little"),
    ],
)
def test_otherwise_nothing_is_said(losses, training, why):
    assert told(losses, training, TAIL[: len(losses)]) is None, why


def test_a_constant_rate_and_one_that_is_0_are_no_trouble():
    assert told((1.0, 0.8, 0.7), (1.0, 0.8, 0.7), (1e-3,) * 3)
    assert told((1.0, 0.8, 0.7), (1.0, 0.8, 0.7), (0.0,) * 3) is None


@given(st.lists(st.floats(0.01, 10), min_size=3, max_size=30), st.floats(0.1, 10))
def test_units_of_rate_and_loss_do_not_matter(losses, times):
    rates = [1e-3 / (1 + number) for number in range(len(losses))]
    one, other = (
        told([loss * factor for loss in losses], [loss * factor for loss in losses], [rate * factor for rate in rates])
        for factor in (1, times)
    )
    edge = any(abs(low - high) < 1e-6 for low, high in pairwise(losses))
    assert edge or bool(one) == bool(other)


def test_a_damaged_history_tells_less_and_ends_nothing(tmp_path):
    generation = SimpleNamespace(check=lambda: None, commit=lambda aside, path: aside.replace(path))
    generation.aside = lambda name: tmp_path / f"aside-{name}"
    curve = CurveFile(tmp_path, generation, step=9, total_steps=9, blocks=["head"], metrics=["loss"])
    file = tmp_path / "history.csv"
    file.write_text(
        "step,epoch,phase,loss,learningRate.head,validation.loss\n3,1,head,1.5,0.1,1.4\n4,1,head,1.5,0.1,\n5,1,head,nan,0.1,1\n6,1,x\n"
    )
    assert curve.evaluations("head") == [Evaluated(3, 0.1, 1.5, 1.4)]
    assert curve.evaluations("other") == []
    file.unlink()
    assert curve.evaluations("head") == []


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("more", "said"), [({}, True), ({"earlyStopping": {"patience": 1, "minDelta": 10.0}}, False)])
def test_a_run_says_it_of_itself_unless_it_has_stopped_early(tmp_path, more, said):
    strategy = {"type": "FullFineTuning", "learningRate": {"head": 1e-2, "backbone": 1e-2}}
    complete(run_in(tmp_path, strategy=strategy, evaluate={"everySteps": 4}, **more))
    report = json.loads((tmp_path / "report.json").read_text())
    assert ("TooShort" in [one["type"] for one in report["decisions"]]) == said
