"""A rung of Auto is tried for its first steps before it is trained whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer import auto_group
from tests.trainer.auto_group import learned, run_of
from tests.trainer.complete import complete
from tests.trainer.interrupted import Killed, finished, kill_at
from tests.trainer.test_auto import ACCURACY, SHARE, decided, phases_of, report_of, rungs
from unfreeze_api.contracts import budget
from unfreeze_api.tasks.base import Metric
from unfreeze_trainer.judgement.rungs import SURE, Wanted
from unfreeze_trainer.judgement.trials import Trial, judge
from unfreeze_trainer.phases.compile import trial_steps
from unfreeze_trainer.training.loop import train

LOSS = st.one_of(st.floats(0, 10), st.just(float("nan")), st.none())


def answer(*, value=0.8, idle=0.95, loss=1.0, now=1.0, behind=False, steps=10, rows=None):
    tried = Trial("all", value, steps, 100, now)
    return judge(
        rungs(0.8)[0], tried, Wanted(ACCURACY, rows=rows), idle=idle, loss=loss, margin=0.01, behind=behind, step=3
    )


@given(SHARE, st.tuples(LOSS, LOSS), st.booleans(), SHARE, st.floats(0, 10))
def test_what_speaks_more_for_a_rung_never_ends_it(idle, losses, behind, less, fall):
    loss, now = losses
    found = answer(idle=idle, loss=loss, now=now, behind=behind)
    assert len(budget.decision(found.info()).to_json()) <= budget.MAX_DECISION_BYTES
    if found.answer == "Yes":
        assert answer(idle=idle * less, loss=loss, now=now, behind=behind).answer == "Yes"
        assert answer(idle=idle, loss=loss, now=now, behind=True).answer == "Yes"
        if now is not None:
            assert answer(idle=idle, loss=loss, now=now - fall, behind=behind).answer == "Yes"
    else:
        assert (idle >= SURE, behind) == (True, False)


def test_a_rung_is_given_up_where_metric_and_loss_speak_against_it():
    assert (
        answer().message == "after 10 of 100 steps of all accuracy is 0.8, before 0.8, loss 1, before 1: it is given up"
    )
    assert answer(now=0.98).message.endswith("loss 0.98, before 1: it goes on")
    assert answer(now=0.995).answer == "No"
    assert answer(now=float("nan")).answer == "No"
    assert answer(idle=0.5).answer == "Yes"
    assert answer(loss=None).answer == "Yes", "nobody knows the loss"
    assert answer(rows=29).message.endswith("it goes on, since 29 validation samples are too few to give it up")
    assert answer(rows=29, idle=0.5).message.endswith("before 1: it goes on"), "as it would on more of them"
    assert answer(rows=30).answer == "No"
    assert answer(behind=True).message.endswith("it goes on, since nothing that is worth anything is there yet")


def test_a_metric_that_is_the_loss_is_told_once():
    metric = Metric("loss", "Lower")
    before, tried = replace(rungs(0.8)[0], value=1.0), Trial("all", 0.9, 10, 100, 0.95)
    found = judge(before, tried, Wanted(metric), idle=0.5, loss=1.0, margin=0.01, behind=False, step=3)
    assert found.message == "after 10 of 100 steps of all loss is 0.9, before 1: it goes on"
    assert len({one.name for one in found.evidence}) == len(found.evidence)


def test_a_tenth_of_a_rung_is_its_trial_unless_it_is_short():
    assert [trial_steps(steps) for steps in (1, 29, 30, 100, 101, 1000)] == [0, 0, 10, 10, 11, 100]
    probe, upper, whole = phases_of(
        {
            "rungs": [
                {"type": "FeatureExtraction"},
                {"type": "PartialFineTuning", "epochs": 20},
                {"type": "FullFineTuning"},
            ]
        }
    )
    assert [phase.trial for phase in (probe, upper, whole)] == [0, 20, 0]


slow = pytest.mark.slow


@slow
@pytest.mark.usefixtures("one_thread")
def test_a_rung_that_promises_nothing_is_given_up_and_a_kill_changes_no_bit(tmp_path):
    whole = learned(tmp_path / "whole")
    complete(whole)
    last = whole.plan.phases[1]
    assert (last.trial, last.steps) == (10, 60)
    [trial] = decided(tmp_path / "whole", "Trial")
    assert (trial["answer"], trial["step"]) == ("No", last.first_step + 10)
    report = report_of(tmp_path / "whole")
    assert [phase["steps"] for phase in report["phases"]][1] == 10
    assert [one["answer"] for one in decided(tmp_path / "whole", "Strategy")] == ["FeatureExtraction"]
    undisturbed, _ = finished(tmp_path / "whole")
    for number, step in enumerate((last.first_step + 8, last.first_step + 9)):
        run = learned(tmp_path / str(number))
        kill_at(run, step)
        with pytest.raises(Killed):
            complete(run)
        run.saver.close()
        complete(learned(tmp_path / str(number)))
        tensors, other = finished(tmp_path / str(number))
        assert [name for name in tensors if not torch.equal(tensors[name], undisturbed[name])] == []
        assert (other["results"], other["bestStep"]) == (report["results"], report["bestStep"])
        assert [one["message"] for one in decided(tmp_path / str(number), "Trial")] == [trial["message"]]


@slow
@pytest.mark.usefixtures("one_thread")
def test_a_rung_that_learns_what_the_head_cannot_goes_on(tmp_path):
    run = run_of(tmp_path, blind=True, epochs=8)
    train(run)
    run.saver.close()
    trials = [one for one in run.state.decisions if one.type == "Trial"]
    assert [one.answer for one in trials] == ["Yes"] * len(trials)
    assert len(trials) == 2
    assert [phase.steps for phase in run.state.phases][1:] == [phase.steps for phase in run.plan.phases][1:]


@slow
@pytest.mark.usefixtures("one_thread")
def test_two_workers_give_a_rung_up_as_one(ranks, tmp_path):
    one, other = ranks.call(auto_group.tried, tmp_path / "two", 2)
    assert one == other
    assert one == auto_group.tried(tmp_path / "one", 1)
    assert [kind for _, kind, answer in one[0] if answer == "No"] == ["Trial"]
