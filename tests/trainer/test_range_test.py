"""Learning rates by a range test: what is read off its curve, and that the run is then the one of the chosen rates."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer import range_group
from tests.trainer.complete import complete
from tests.trainer.engine_group import ENGINES
from tests.trainer.interrupted import Killed, assert_as_undisturbed, events, finished, kill_at
from tests.trainer.mlp import MLPTask
from tests.trainer.range_group import open_run
from unfreeze_trainer.exports.report import read_report
from unfreeze_trainer.judgement.rates import (
    MAX_STEPS,
    MIN_STEPS,
    SHARE,
    SHORTEST,
    SURE,
    Chosen,
    Curve,
    choose,
    decided,
    ramp,
    settle,
    steps_for,
)
from unfreeze_trainer.runs.rates import FILE, read_rates
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.meter import StopRequested
from unfreeze_trainer.training.scratch import scratch_job

SHARES = st.lists(st.floats(0.05, 3.0), min_size=3, max_size=40)


def curve(shares, prior=1e-3, before=2.0):
    """A curve whose losses are so many times those of before, after each rate of a ramp."""
    losses = [before, *(before * share for share in shares)]
    return Curve("head", prior, ramp(prior, len(shares)), losses, [before] * len(losses))


# What is pure.


@given(st.integers(0, 10**6), st.integers(1, 2))
def test_a_test_takes_a_twentieth_of_the_steps_or_the_few_that_it_needs(planned, tests):
    steps = steps_for(planned, tests=tests)
    passes = 4 * steps * tests / 3
    assert passes <= min(MAX_STEPS, max(MIN_STEPS, SHARE * planned))
    assert bool(steps) == (planned >= SHORTEST)
    assert steps <= steps_for(planned + 100, tests=tests)


@given(SHARES, st.floats(1e-6, 1e-1), st.floats(0.1, 10))
def test_where_the_ramp_lies_is_where_the_rate_lies(shares, prior, factor):
    one, other = choose(curve(shares, prior)), choose(curve(shares, prior * factor))
    assert other.rate / one.rate == pytest.approx(factor, rel=0.14), "rates are rounded to a twentieth of a decade"
    assert (one.sight, one.weight) == (other.sight, other.weight)


@given(SHARES)
def test_units_of_the_loss_do_not_matter_and_the_rate_lies_between_measured_and_usual(shares):
    found = choose(curve(shares))
    assert found == choose(curve(shares, before=7.0)) or found.rate == pytest.approx(
        choose(curve(shares, before=7.0)).rate, rel=0.13
    )
    if found.sight == "Fell":
        low, high = sorted((found.at, 1e-3))
        assert low * 0.94 <= found.rate <= high * 1.06


@given(st.integers(1, 12), st.integers(2, 12))
def test_what_bursts_earlier_gets_a_lower_rate(first, later):
    shares = [1.0] * 30
    curves = [curve([*shares[:place], 9.0]) for place in (first, first + later)]
    for one in curves:
        one.rates[:] = ramp(1e-3, 40)[: len(one.rates)]
    early, late = (choose(one) for one in curves)
    assert early.sight == late.sight == "Burst"
    assert early.at < late.at
    assert curves[0].over


def test_a_loss_that_says_nothing_leaves_the_rate():
    assert choose(curve([1.0, 0.995, 1.001, 1.2])) == Chosen(1e-3, "Nothing", None, 0.0, 1.0)


def test_a_loss_that_is_not_finite_ends_the_test_and_counts_for_nothing():
    found = curve([0.9, 0.8, math.nan])
    assert found.over
    assert choose(found).rate == pytest.approx(choose(curve([0.9, 0.8, 3.0])).rate)


def test_a_model_that_gives_no_numbers_ends_the_test_too():
    found = Curve("head", 1e-3, ramp(1e-3, 1), [math.nan, math.nan], [math.nan, math.nan])
    assert found.over
    assert choose(found).sight == "Burst"


def test_a_longer_test_counts_more():
    few, many = (choose(curve([0.999] * n + [0.5] + [0.999] * n)) for n in (2, 30))
    assert few.weight < SURE < many.weight


@given(SHARES, st.integers(1, 10**5), st.integers(1, 10**5))
def test_more_steps_get_no_higher_rate(shares, planned, more):
    one, other = choose(curve(shares), planned), choose(curve(shares), planned + more)
    assert other.rate <= one.rate
    assert other.rate >= one.rate / 11


def test_a_pretrained_layer_stays_below_the_head_unless_it_was_surely_measured():
    few, many = Chosen(9e-3, "Fell", 3e-2, 0.4, 1.0), Chosen(9e-3, "Fell", 3e-2, 0.9, 1.0)
    assert settle(few, 1e-2, alike=False) == 1e-3
    assert settle(many, 1e-2, alike=False) == 9e-3
    assert settle(many, 1e-3, alike=False) == 1e-3
    assert settle(Chosen(1e-9, "Fell", 3e-9, 0.4, 1.0), 1e-2, alike=False) == 1e-4
    assert settle(Chosen(5e-2, "Fell", 0.1, 0.4, 1.0), 1e-2, alike=True) == 1e-2, "no backbone above its head"


def test_the_decision_says_what_was_seen_and_what_else_would_be_done():
    seen = curve([0.99, 0.9, 0.7, 0.9, 8.0])
    found = decided([(seen, choose(seen))], head=2e-3, backbone=2e-4, before=(1e-3, 1e-4), planned=400, seconds=1.5)
    assert (found.type, found.answer, found.step, found.seconds) == ("Rates", "0.002, 0.0002", 0, 1.5)
    assert "head: the loss fell around" in found.message
    assert found.alternative == "head 0.001, backbone 0.0001, whatever the data"
    assert {one.name: one.value for one in found.evidence}["steps of the range tests"] == 6
    short = decided([], head=1e-3, backbone=1e-4, before=(1e-3, 1e-4), planned=12, seconds=0.0)
    assert "12 steps are too few" in short.message
    solved = decided([], head=1e-3, backbone=1e-4, before=(1e-3, 1e-4), planned=0, seconds=0.0)
    assert (
        solved.message
        == "head 0.001, backbone 0.0001, which nothing uses: the head is solved, and nothing trains by steps"
    )


# Runs.


@pytest.fixture(scope="module")
def chosen(tmp_path_factory, one_thread):
    """The folder of a run that chose its rates, and came to its end."""
    folder = tmp_path_factory.mktemp("range") / "whole"
    complete(open_run(folder))
    return folder


def rates_of(folder):
    found = read_rates(folder)
    return {"head": found.head, "backbone": found.backbone}


@pytest.mark.slow
def test_a_run_that_chooses_trains_as_with_these_rates_given(chosen, tmp_path):
    complete(open_run(tmp_path, **rates_of(chosen)))
    assert rates_of(chosen) != {"head": 1e-3, "backbone": 1e-4}
    there, here = finished(chosen)[0], finished(tmp_path)[0]
    assert there.keys() == here.keys()
    assert [name for name in there if not torch.equal(there[name], here[name])] == []
    assert not (tmp_path / FILE).exists()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_little_that_trains_is_kept_and_put_back(tmp_path):
    made = MLPTask(width=64)
    build, built = made.build_model, []
    made.build_model = lambda: (built.append(1), build())[1]
    chosen, given = tmp_path / "chosen", tmp_path / "given"
    run = open_run(chosen, made, strategy="FeatureExtraction")
    assert len(built) == 1, "the base is loaded once"
    complete(run)
    complete(open_run(given, MLPTask(width=64), strategy="FeatureExtraction", head=read_rates(chosen).head))
    there, here = finished(chosen)[0], finished(given)[0]
    assert [name for name in there if not torch.equal(there[name], here[name])] == []


@pytest.mark.slow
def test_what_was_chosen_is_seen_everywhere(chosen):
    (event,) = events(chosen, "decision")[:1]
    report = read_report(chosen)
    (decision,) = (one for one in report.decisions if one.type == "Rates")
    assert (event["type"], event["answer"]) == ("Rates", decision.answer)
    assert {"head", "backbone"} == {one.part for one in read_rates(chosen).tests}
    assert "<svg" in (page := (chosen / "report.html").read_text())
    assert "range test of the head" in page
    assert decision.question in page


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["in it", "after it", "later"])
def test_a_kill_in_or_after_the_test_changes_nothing(chosen, tmp_path, monkeypatch, moment):
    if moment == "in it":
        from unfreeze_trainer.training import range_test

        def die(*_, **__):
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(range_test, "store_rates", die)
            with pytest.raises(Killed):
                open_run(tmp_path)
        assert not (tmp_path / FILE).exists()
    else:
        run = open_run(tmp_path)
        if moment == "later":
            kill_at(run, 14)
            with pytest.raises(Killed):
                train(run)
        run.saver.close()
        assert (tmp_path / FILE).exists()
    complete(open_run(tmp_path))
    assert_as_undisturbed(tmp_path, finished(chosen))
    assert len([one for one in events(tmp_path, "decision") if one["type"] == "Rates"]) == 1


@pytest.mark.slow
def test_it_reads_no_split_but_the_training_data(tmp_path):
    task = range_group.task()
    read, batches = [], task.batches

    def watched(split, *arguments, **options):
        read.append(split)
        return batches(split, *arguments, **options)

    task.batches = watched
    open_run(tmp_path, task)
    assert {*read} == {"train"}


@pytest.mark.slow
def test_a_stop_in_the_test_leaves_nothing_behind(tmp_path):
    class Stopping:
        def stop_requested(self):
            return True

        def write_activity(self, text):
            pass

    with pytest.raises(StopRequested):
        open_run(tmp_path, link=Stopping())
    assert not (tmp_path / FILE).exists()


@pytest.mark.slow
def test_a_short_training_keeps_its_rates_and_says_why(tmp_path):
    run = open_run(tmp_path, epochs=2)
    rate = run.job.strategy.learning_rate
    assert (rate.head, rate.backbone) == (1e-3, 1e-4)
    assert "10 steps are too few" in run.state.decisions[0].message
    assert json.loads((tmp_path / FILE).read_text())["tests"] == []
    assert scratch_job(run.asked, "scratch", 2.0).strategy.learning_rate.rates == "Auto", (
        "random weights are tested anew"
    )


@pytest.mark.slow
def test_rates_that_were_chosen_by_other_data_are_chosen_anew_until_something_is_trained(tmp_path):
    """A pod dies after the test, and somebody corrects the data before the next one: until there is a checkpoint the folder takes it."""

    def head(rows):
        given = MLPTask()
        given.pins["data"]["train"] = rows
        run = open_run(tmp_path, given, epochs=2)
        run.saver.close()
        return run.job.strategy.learning_rate.head

    usual = head("before")
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text().replace(f'"head": {usual}', '"head": 0.5'))
    assert (head("before"), head("after")) == (0.5, usual)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_two_workers_choose_as_one_on_every_engine(ranks, tmp_path, engine):
    one, other = ranks.call(range_group.rates, tmp_path / "two", engine, 2)
    assert one == other
    assert one[0] == range_group.rates(tmp_path / "one", "DDP", 1)[0]
    assert one[1], "the weights are those of before"
