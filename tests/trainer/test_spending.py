"""A budget of a job: the training ends in order before it is passed, whatever stops it meanwhile."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer import auto_group, range_group, spending_group
from tests.trainer.complete import complete
from tests.trainer.interrupted import Killed, events, kill_at
from tests.trainer.jobs import make_job
from tests.trainer.ranks import Ranks
from tests.trainer.spending_group import HOURS, Clock, Fresh, open_run, tick
from unfreeze_api.contracts.progress import PhaseResult
from unfreeze_api.contracts.resolved import ResolvedBudget
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.exports.exporter import Exporter
from unfreeze_trainer.judgement.budgets import Reserve, decided, is_over, told, too_small
from unfreeze_trainer.runs.spent import Spent, read_spent, require_known
from unfreeze_trainer.runs.state import RunState
from unfreeze_trainer.training.meter import StopRequested
from unfreeze_trainer.training.spending import FRESH_SECONDS, FreshProcess, Spending
from unfreeze_trainer.training.work import Work

SECONDS = st.floats(0, 1e6)
TWO_HOURS = ResolvedBudget(unit="hours", limit=2, per_hour=1)
MONEY = ResolvedBudget(unit="money", limit=40, per_hour=8, currency="EUR")
GPUS = {"resourcesPerNode": {"limits": {"nvidia.com/gpu": 4}}, "numNodes": 2}


def budget_of(budget, **change):
    return make_job("/none", "/none.csv", runPolicy={"budget": budget}, **change).budget


# What is pure.


@given(SECONDS, SECONDS, SECONDS, SECONDS)
def test_more_spent_or_more_kept_never_goes_on_longer(spent, ahead, reserve, limit):
    if is_over(spent, ahead, reserve, limit):
        assert is_over(spent + 1, ahead, reserve, limit)
        assert is_over(spent, ahead, reserve + 1, limit)
    else:
        assert spent + reserve <= limit


@given(st.lists(st.floats(0, 1e5), max_size=6))
def test_starts_add_up_in_the_unit_of_the_budget(starts):
    spent = Spent()
    for seconds in starts:
        spent = spent.after(seconds, MONEY, now=0.0)
    assert spent.seconds == pytest.approx(sum(starts))
    assert spent.seconds_of(MONEY) == pytest.approx(sum(starts))
    twice = MONEY.model_copy(update={"per_hour": 16.0})
    assert spent.seconds_of(twice) == pytest.approx(sum(starts) / 2), "money that is gone buys half of these pods' time"
    assert spent.seconds_of(TWO_HOURS) == pytest.approx(sum(starts)), "another unit: what was run counts"


def test_the_first_budget_of_a_run_counts_what_it_has_trained_without_one(tmp_path):
    job = make_job("/none", "/none.csv", distribution=GPUS, runPolicy={"budget": {"acceleratorHours": 16}})
    done = PhaseResult(name="head", steps=5, seconds=3000.0, trainable_parameters=1, metrics={})
    state = RunState(phases=[done], phase_index=1, phase_seconds=600.0)
    nothing = dict.fromkeys(("engine", "saver", "decisions"), None)

    def earlier():
        return Spending(
            job, None, None, state, folder=SimpleNamespace(path=tmp_path, generation=None), **nothing
        )._earlier

    assert (earlier().seconds, earlier().amount) == (3600.0, pytest.approx(8.0))
    (tmp_path / "spent.json").write_text(Spent(seconds=4000.0, unit="accelerator hours", amount=9.0).model_dump_json())
    assert earlier().seconds == 4000.0, "phases are a part of what was counted"


def test_what_an_hour_takes_of_a_budget():
    assert budget_of({"hours": 2}) == TWO_HOURS
    assert budget_of({"acceleratorHours": 16}, distribution=GPUS).per_hour == 8
    assert budget_of({"amount": 40, "pricePerHour": 2.5}, distribution=GPUS).per_hour == 20
    assert budget_of({"amount": 40, "pricePerHour": 0.5}).per_hour == 0.5, "of a job without accelerators a pod's"
    for budget, words in (({"amount": 40}, "pricePerHour"), ({"acceleratorHours": 1}, "asks for no accelerators")):
        with pytest.raises(JobError, match=words) as error:
            require_known(budget_of(budget))
        assert error.value.reason == "InvalidJob"
    with pytest.raises(JobError, match="has 0 for this job's accelerators"):
        require_known(MONEY.model_copy(update={"per_hour": 0.0}))
    require_known(None)


def test_a_budget_is_no_part_of_what_is_learned():
    plain, limited = make_job("/none", "/none.csv"), make_job("/none", "/none.csv", runPolicy={"budget": {"hours": 2}})
    assert plain.fingerprint() == limited.fingerprint()
    assert (plain.schema_version, limited.schema_version) == (1, 2), "a trainer that does not know it must refuse"


def test_what_is_said():
    def said(spent, left, budget=TWO_HOURS, *, last=True):
        kept = Reserve(evaluation=60, export=120) if left else None
        found = decided(
            budget, spent, step=1204, steps_left=left, reserve=kept, before=0.0, phases=[], last=last
        )  # fmt: skip
        return found.answer, found.message, bool(found.warning)

    assert said(6000, 0) == ("Kept", "1.667 hours of 2 hours are spent, the training came to its end", False)
    ended = "the training ended at step 1,204, 1,796 before its last"
    assert said(7000, 1796) == ("Ended", f"1.944 hours of 2 hours are spent; {ended}", False)
    assert said(6900, 1796, last=False)[1] == (
        f"1.917 hours of 2 hours are spent, and the rest is kept for evaluation and export: {ended}"
    )
    assert said(7300, 0)[::2] == ("Exceeded", True)
    assert said(3600, 0, MONEY)[1].startswith("8.00 EUR of 40.00 EUR are spent")
    small = too_small(ResolvedBudget(unit="hours", limit=0.01, per_hour=1), 30, 20, Reserve(evaluation=30, export=40))
    assert small == (
        "spec.runPolicy.budget of 36 seconds has no room for a model: 30 seconds are spent before the first step, and an"
        " evaluation, the test data, a checkpoint and the export take about 1.17 minutes more. Set 2.22 minutes at least: another start takes its time again, and what"
        " is spent counts"
    )
    assert told(MONEY.model_copy(update={"per_hour": 0.01}), 360) == "0.001 EUR"
    assert told(ResolvedBudget(unit="accelerator hours", limit=1, per_hour=64), 3.6e6) == "64,000 accelerator hours"


def test_what_the_model_has_to_say_at_the_end_is_kept():
    spending = object.__new__(Spending)
    training = {"evaluate": {"generate": {"rows": 10}}}
    spending._job = make_job("/none", "/none.csv", training=training, runPolicy={"budget": {"hours": 2}})
    spending._budget, spending._task = spending._job.budget, SimpleNamespace(splits={"validation": 40, "test": 5})
    spending._engine, spending._state = SimpleNamespace(world_size=2, shapes={}), RunState()
    spending._saver, spending._fresh, spending._evaluation = SimpleNamespace(seconds=1.0), None, 0.0
    assert spending.rounds_to_time == 2, "nobody knows yet how long that takes"
    before = spending._reserve().after
    spending._state.saying_seconds = 3.0
    assert spending.rounds_to_time == 0
    assert spending._reserve().after - before == 3.0 * (2 * 5 + 3), "the phase's end, the best weights, the test data"


def test_a_stop_in_the_last_evaluation_leaves_the_end_to_the_next_start():
    """A checkpoint that says that the training is over, and has no evaluation, would have nothing to export."""

    def stopped():
        raise StopRequested

    work = object.__new__(Work)
    work._state, work._milestones = RunState(step=7, over=True), SimpleNamespace(conclude=stopped)
    with pytest.raises(StopRequested):
        work._conclude()
    assert not work._state.over


# Whole runs, on a clock of their own.


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(Exporter, "write", lambda *_, **__: None)
    with Clock() as found:
        yield found


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def budget_in(folder):
    [found] = [one for one in report_of(folder)["decisions"] if one["type"] == "Budget"]
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_training_ends_before_its_budget_is_passed_and_exports_its_best(tmp_path, clock):
    run = open_run(tmp_path, budget={"hours": HOURS})
    tick(run, clock)
    noted = []
    run.exporter.evaluate = lambda: noted.append(read_spent(tmp_path).seconds)
    complete(run)
    assert noted == [run.state.step], "before something long begins: a kill then loses no more than that"
    assert 70 < run.state.step <= 100 - FRESH_SECONDS < run.plan.total_steps
    assert run.state.evaluated_step == run.state.step, "its last step is evaluated"
    decision = budget_in(tmp_path)
    assert decision["answer"] == "Ended"
    assert (
        f"the training ended at step {run.state.step}, {run.plan.total_steps - run.state.step} before"
        in decision["message"]
    )
    assert report_of(tmp_path)["results"]["test"]["accuracy"] > 0
    assert [phase["steps"] for phase in report_of(tmp_path)["phases"]] == [run.state.step]
    assert read_spent(tmp_path).seconds <= 100
    assert decision["message"] in (tmp_path / "report.html").read_text().replace("&#x27;", "'")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_what_earlier_starts_took_counts(tmp_path, clock, monkeypatch):
    run = open_run(tmp_path, budget={"hours": HOURS}, training={"checkpoint": {"everySteps": 10}})
    monkeypatch.setattr("unfreeze_trainer.training.spending._WRITE_SECONDS", 0.0)
    tick(run, clock)
    kill_at(run, 45)
    with pytest.raises(Killed):
        complete(run)
    run.saver.close()
    assert read_spent(tmp_path).seconds >= 44, "also what the kill has lost"
    clock.now = 0.0
    run = open_run(tmp_path, budget={"hours": HOURS}, training={"checkpoint": {"everySteps": 10}})
    begins = run.state.step
    tick(run, clock)
    complete(run)
    assert begins >= 40
    assert 70 < run.state.step <= 80
    assert len([one for one in events(tmp_path, "decision") if one["type"] == "Budget"]) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_start_that_finds_the_budget_spent_takes_what_there_is(tmp_path, clock):
    run = open_run(tmp_path, budget={"hours": HOURS}, training={"checkpoint": {"everySteps": 10}})
    tick(run, clock)
    kill_at(run, 45)
    with pytest.raises(Killed):
        complete(run)
    run.saver.close()
    clock.now = 90.0
    run = open_run(tmp_path, budget={"hours": HOURS}, training={"checkpoint": {"everySteps": 10}})
    begins = run.state.step
    complete(run)
    assert run.state.step == begins
    assert [phase["steps"] for phase in report_of(tmp_path)["phases"]] == [begins]
    assert budget_in(tmp_path)["answer"] == "Ended"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_start_that_finds_the_budget_spent_evaluates_what_nobody_has(tmp_path, clock):
    training = {"checkpoint": {"everySteps": 10}, "evaluate": {"everySteps": 60}}
    run = open_run(tmp_path, budget={"hours": HOURS}, training=training)
    tick(run, clock)
    kill_at(run, 45)
    with pytest.raises(Killed):
        complete(run)
    run.saver.close()
    clock.now = 90.0
    run = open_run(tmp_path, budget={"hours": HOURS}, training=training)
    begins, enter = run.state.step, run.features.enter

    def telling(phase, reads, *, beat):
        beat(1, 2)
        enter(phase, reads, beat=beat)

    run.features.enter = telling
    complete(run)
    assert begins >= 40
    assert run.state.step == run.state.best.step == begins + 1
    assert budget_in(tmp_path)["answer"] == "Ended"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_budget_without_room_for_a_model_is_refused_before_the_first_step(tmp_path, clock):
    clock.now = 90.0
    run = open_run(tmp_path, budget={"hours": HOURS})
    with pytest.raises(
        JobError, match=r"has no room for a model: 1\.5 minutes are spent before the first step"
    ) as error:
        complete(run)
    assert error.value.reason == "BudgetTooSmall"
    assert run.state.step == 0
    assert not [*(tmp_path / "checkpoints").glob("*")]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_rung_that_would_not_end_is_not_begun_and_one_that_has_begun_ends(tmp_path, clock):
    rungs = [{"type": "FeatureExtraction", "epochs": 4}, {"type": "FullFineTuning"}]
    strategy = {"type": "Auto", "auto": {"minGain": 0.0, "rungs": rungs}}
    run = open_run(tmp_path, budget={"hours": HOURS}, strategy=strategy)
    tick(run, clock)
    run.ladder._seconds_of = lambda _: 1000.0
    complete(run)
    assert [phase["name"] for phase in report_of(tmp_path)["phases"]] == ["head"]
    assert [one.answer for one in run.state.decisions if one.type == "Rung"] == ["No"]
    clock.now = 0.0
    run = open_run(tmp_path / "begun", budget={"hours": HOURS}, strategy=strategy)
    tick(run, clock)
    run.ladder._seconds_of = lambda _: 1.0
    complete(run)
    assert run.state.step <= 80
    assert [one.answer for one in run.state.decisions if one.type == "Budget"] == ["Ended"]
    assert report_of(tmp_path / "begun")["phases"][0]["name"] == "head"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_budget_that_is_over_before_a_phase_leaves_the_one_before(tmp_path, clock):
    strategy = {"type": "LinearProbeThenFineTune", "linearProbeThenFineTune": {"probeEpochs": 4}}
    run = open_run(tmp_path, budget={"hours": HOURS}, strategy=strategy)
    enter = run.features.enter

    def slowly(phase, reads, *, beat):
        if phase:
            clock.now = 95.0
            beat(1, 2)
        enter(phase, reads, beat=beat)

    run.features.enter = slowly
    complete(run)
    assert [phase["name"] for phase in report_of(tmp_path)["phases"]] == ["head"]
    assert run.state.best.step <= run.plan.phases[0].steps
    assert budget_in(tmp_path)["answer"] == "Ended"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_what_is_compared_afterwards_is_left_out_where_nothing_is_left(tmp_path, clock):
    run = open_run(tmp_path, budget={"hours": HOURS}, evidence={"baseline": {}}, training={"epochs": 2})

    def late(*_, **__):
        clock.now = 101.0

    run.exporter.evaluate = late
    complete(run)
    told = [one["message"] for one in events(tmp_path, "warning")]
    assert "spec.evidence.baseline was left out: runPolicy.budget is spent" in told
    assert budget_in(tmp_path)["answer"] == "Exceeded"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_job_without_a_budget_is_not_counted_and_one_that_is_kept_changes_no_number(tmp_path, monkeypatch):
    monkeypatch.setattr(Exporter, "write", lambda *_, **__: None)
    monkeypatch.setattr("unfreeze_trainer.training.spending.FreshProcess", Fresh)
    limited = open_run(tmp_path / "limited", budget={"hours": 1}, training={"epochs": 2})
    complete(limited)
    assert budget_in(tmp_path / "limited")["answer"] == "Kept"
    monkeypatch.setattr(Spending, "_over", None)
    run = open_run(tmp_path / "plain", training={"epochs": 2})
    complete(run)
    assert not (tmp_path / "plain/spent.json").exists()
    assert not [one for one in run.state.decisions if one.type == "Budget"]
    assert report_of(tmp_path / "plain")["results"] == report_of(tmp_path / "limited")["results"]


@pytest.mark.slow
def test_a_fresh_process_is_timed():
    fresh = FreshProcess()
    [thread] = [one for one in threading.enumerate() if one.name == "fresh process"]
    thread.join()
    assert fresh.seconds
    assert fresh.seconds > 0.1


@pytest.mark.slow
def test_four_workers_decide_as_one(tmp_path, one_thread):
    """A budget, the rungs of Auto, and rates by a range test."""
    four = Ranks(tmp_path, world=4)
    try:
        spent = four.call(spending_group.trained, tmp_path / "spent", "DDP", 4)
        climbed = four.call(auto_group.trained, tmp_path / "rungs", "DDP", 4, True)
        rates = four.call(range_group.rates, tmp_path / "rates", "DDP", 4)
    finally:
        four.kill()
    for found in (spent, climbed, rates):
        assert found == found[:1] * 4
    assert {kind for _, kind, _ in spent[0][0]} == {"Useful", "Budget"}
    assert spent[0][0] == spending_group.trained(tmp_path / "one", "DDP", 1)[0]
    assert climbed[0][0] == auto_group.trained(tmp_path / "one-rungs", "DDP", 1, True)[0]
    assert rates[0][0] == range_group.rates(tmp_path / "one-rates", "DDP", 1)[0]
