"""How much of the model to change: rungs, gates between them, and which one is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer import auto_group
from tests.trainer.auto_group import run_of
from tests.trainer.complete import complete
from tests.trainer.engine_group import forget_accelerate
from tests.trainer.interrupted import Killed, events, finished, kill_at
from tests.trainer.jobs import make_job
from unfreeze_api.contracts import budget
from unfreeze_api.contracts.report import Rollback
from unfreeze_api.spec.strategy import AutoSpec
from unfreeze_api.tasks.base import Metric
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.judgement.paired import within_by_bootstrap, within_by_rows
from unfreeze_trainer.judgement.rungs import (
    FEW,
    IDLE,
    SURE,
    Climbed,
    Next,
    Wanted,
    best_of,
    choose,
    gate,
    margin_of,
    within_values,
)
from unfreeze_trainer.judgement.said import Said, within
from unfreeze_trainer.phases.compile import compile_phases
from unfreeze_trainer.runs.state import Best, Rung, RunState
from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.ladder import Ladder
from unfreeze_trainer.training.loop import train

ACCURACY, RMSE = Metric("accuracy"), Metric("rmse", "Lower")
SHARE = st.floats(0, 1)
COUNTS = st.integers(0, 40)


def rows(both, won, lost, neither):
    one = [True] * (both + won) + [False] * (lost + neither)
    other = [True] * both + [False] * won + [True] * lost + [False] * neither
    return np.array(one, dtype=bool), np.array(other, dtype=bool)


# What is pure.


@settings(max_examples=60, deadline=None)
@given(COUNTS, COUNTS, COUNTS, COUNTS, st.floats(0, 0.2))
def test_a_cheaper_rung_that_gets_more_rows_right_is_never_less_probably_as_good(both, won, lost, neither, margin):
    before = within_by_rows(*rows(both, won, lost, neither + 1), margin)
    assert 0 <= before <= 1
    assert within_by_rows(*rows(both, won + 1, lost, neither), margin) >= before - 1e-9
    if lost:
        assert within_by_rows(*rows(both + 1, won, lost - 1, neither + 1), margin) >= before - 1e-9
    assert within_by_rows(*rows(both, won, lost, neither + 1), margin + 0.01) >= before - 1e-9


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(COUNTS, COUNTS, COUNTS, st.integers(0, 9))
def test_the_order_of_the_rows_does_not_matter(both, won, lost, seed):
    one, other = rows(both, won, lost, 5)
    order = np.random.default_rng(seed).permutation(len(one))
    assert within_by_rows(one[order], other[order], 0.01) == within_by_rows(one, other, 0.01)
    actual = np.random.default_rng(1).integers(0, 3, len(one))
    first, second = (
        Said("OneOf", ["a", "b", "c"], actual, np.where(right, actual, (actual + 1) % 3)) for right in (one, other)
    )
    turned = [Said("OneOf", said.names, said.actual[order], said.predicted[order]) for said in (first, second)]
    assert within(first, second, "macroF1", 0.01) == within(*turned, "macroF1", 0.01)


def test_of_shares_the_bootstrap_needs_no_draws():
    one, other = rows(50, 9, 12, 29)

    def rates(right):
        return lambda weights: {"accuracy": float(weights[right].sum() / weights.sum())}

    drawn = within_by_bootstrap(rates(one), rates(other), "accuracy", len(one), 0.01, higher=True)
    assert within_by_rows(one, other, 0.01) == pytest.approx(drawn, abs=0.06)
    assert within_by_rows(one, one, 0.0) == 1.0
    assert within_by_rows(*rows(0, 0, 30, 0), 0.01) < 1e-6


def rungs(*values, error=None, useful=True):
    return [
        Climbed(f"rung {place}", value, steps=10, seconds=10.0 * 3**place, error=error, useful=useful)
        for place, value in enumerate(values)
    ]


@given(st.lists(st.tuples(SHARE, SHARE), min_size=1, max_size=8), st.sampled_from([None, 0.0, 0.05]))
def test_the_cheapest_that_is_surely_as_good_is_taken(found, min_gain):
    climbed, probable = rungs(*(value for value, _ in found)), [sure for _, sure in found]
    place, decision = choose(climbed, probable, Wanted(ACCURACY, min_gain=min_gain), step=7)
    top = best_of([one.value for one in climbed], ACCURACY)
    assert place <= top
    assert all(sure < SURE for sure in probable[:place])
    assert place == top or probable[place] >= SURE
    assert (decision.answer, decision.type, decision.step) == (climbed[place].name, "Strategy", 7)
    surer = [max(sure, SURE) if number == 0 else sure for number, sure in enumerate(probable)]
    assert choose(climbed, surer, Wanted(ACCURACY), step=7)[0] == 0


@given(st.tuples(SHARE, SHARE), SHARE, st.floats(1, 500), st.floats(1, 500), st.booleans())
def test_a_gate_keeps_target_and_budget(values, idle, takes, seconds, useful):
    one, other = values
    climbed = rungs(one, other, useful=useful)
    wanted = Wanted(ACCURACY, target=0.9, seconds=seconds)
    decision = gate(climbed, Next("all", takes), wanted, idle=idle, step=3)
    if decision.answer == "Yes":
        assert max(one, other) < 0.9
        assert sum(rung.seconds for rung in climbed) + takes <= seconds
        assert idle < IDLE or not useful
        more = gate(
            climbed, Next("all", takes), Wanted(ACCURACY, target=0.95, seconds=seconds * 2), idle=idle / 2, step=3
        )
        assert more.answer == "Yes", "what speaks less against a rung stops none"
    info = decision.info()
    assert len(budget.decision(info).to_json()) <= budget.MAX_DECISION_BYTES
    assert decision.type == "Rung"


def test_rungs_that_are_alike_by_another_metric_may_not_be_by_the_one_that_is_asked_for():
    actual = np.arange(60) % 2
    same = Said("OneOf", ["a", "b"], actual, np.roll(actual, 1) * (np.arange(60) < 20))
    low, near, high = (
        Rung(phase_index=0, best=Best(step=1, value=value, metrics={}), steps=1, seconds=1.0)
        for value in (0.8, 0.895, 0.9)
    )

    def within_of(metric, one):
        return Ladder._within(SimpleNamespace(_wanted=Wanted(Metric(metric))), one, high, 0.01, (same, same))

    assert within_of("balancedAccuracy", low) == within_of("auroc", near) == 1.0
    assert within_of("auroc", low) == 0.0
    climbed = [replace(one, instead="balancedAccuracy") for one in rungs(0.895, 0.9)]
    said = choose(climbed, [0.95, 1.0], Wanted(Metric("auroc")), step=1)[1].message
    assert said.endswith(" by more than 0.01, with probability 0.95 by balancedAccuracy")


def test_a_gate_says_why():
    def said(*values, idle=None, of=ACCURACY, **wanted):
        return gate(rungs(*values), Next("FullFineTuning", 40.4), Wanted(of, **wanted), idle=idle, step=3).message

    assert said(0.8) == "accuracy is 0.8 by rung 0, 0.2 is left to gain: FullFineTuning is tried"
    assert said(1.0) == "accuracy is 1 by rung 0, no more than 0 is left to gain: FullFineTuning is not tried"
    assert said(0.9, target=0.9) == "accuracy is 0.9 by rung 0, the target 0.9 is met: FullFineTuning is not tried"
    assert "FullFineTuning takes about 40 s, and 10 s of the 45 s are spent: FullFineTuning is not" in said(
        0.8, seconds=45
    )
    assert "no time is left, and 10 s of the 9 s are spent" in said(0.8, seconds=9)
    assert "rung 1 brought no more than 0.01, with probability 0.95: FullFineTuning is not" in said(0.8, 0.8, idle=0.95)
    assert "no more than 0.01, as far as 40 validation samples tell: Full" in said(0.8, 0.8, idle=1.0, rows=40)
    assert said(2.0, of=RMSE, target=2.5).endswith("the target 2.5 is met: FullFineTuning is not tried")
    assert "nothing is known of what is left to gain: FullFineTuning is tried" in said(float("nan"))
    assert said(2.0, of=RMSE) == "rmse is 2 by rung 0, it is not known how much lower it gets: FullFineTuning is tried"


def test_values_alone_have_no_probability():
    """Of a task without an answer to each row, or of too many rows, nobody knows how sure a comparison is: 1.00 would be made up."""
    climbed = [replace(one, by_rows=False) for one in rungs(2.0, 2.0)]
    shut = gate(climbed, Next("all", 9.0), Wanted(RMSE), idle=1.0, step=3)
    assert "rung 1 brought no more than 0.02, by the values alone: all is not tried" in shut.message
    taken = choose(climbed, [1.0, 1.0], Wanted(RMSE), step=3)[1]
    better = choose([climbed[0], replace(climbed[1], value=1.0)], [0.0, 1.0], Wanted(RMSE), step=3)[1]
    for found in (shut, taken, better):
        assert "probab" not in " ".join([found.message, found.otherwise, *(one.name for one in found.evidence)])


def test_nothing_learned_yet_is_no_reason_to_stop():
    found = gate(rungs(0.5, 0.5, useful=False), Next("all", 0.0), Wanted(ACCURACY), idle=1.0, step=3)
    assert found.answer == "Yes"


def test_the_margin_is_the_smaller_of_a_hundredth_and_a_standard_error():
    best = rungs(0.9, error=0.004)[0]
    assert margin_of(best, Wanted(ACCURACY)) == 0.004
    assert margin_of(rungs(0.9, error=0.1)[0], Wanted(ACCURACY)) == 0.01
    assert margin_of(rungs(50.0)[0], Wanted(RMSE)) == 0.5
    assert margin_of(best, Wanted(ACCURACY, min_gain=0.03)) == 0.03


def test_few_rows_shut_no_gate_but_target_and_budget_do():
    def answer(*values, rows, idle=None, **wanted):
        return gate(rungs(*values), Next("all", 9.0), Wanted(ACCURACY, rows=rows, **wanted), idle=idle, step=3)

    found = answer(1.0, rows=FEW - 1)
    assert (found.answer, "29 validation samples are too few to say that nothing is left to gain" in found.message) == (
        "Yes",
        True,
    )
    assert answer(0.8, 0.8, rows=FEW - 1, idle=1.0).answer == "Yes"
    assert answer(1.0, rows=FEW).answer == answer(0.8, 0.8, rows=FEW, idle=1.0).answer == "No"
    assert [answer(0.8, 0.8, rows=200, idle=idle).answer for idle in (IDLE - 0.01, IDLE)] == ["Yes", "No"]
    assert answer(1.0, rows=4, target=0.95).answer == answer(0.8, rows=4, seconds=12).answer == "No"


def test_of_few_rows_the_best_rung_is_taken_and_of_equal_ones_that_with_the_lowest_loss():
    def taken(*found, rows=10, sure=1.0):
        climbed = [replace(one, loss=loss) for one, (_, loss) in zip(rungs(*(v for v, _ in found)), found, strict=True)]
        return choose(climbed, [sure] * len(found), Wanted(ACCURACY, rows=rows), step=3)

    place, found = taken((0.6, 1.2), (0.8, 0.9), (0.8, 0.7))
    assert (place, found.message) == (
        2,
        "rung 2 is taken: its accuracy is 0.8, better than rung 0 0.6, that of rung 1 too, with a higher loss",
    )
    assert found.otherwise.startswith("30 validation samples or more: with 10 no rung is surely as good")
    assert taken((0.8, 0.7), (0.8, 0.9))[0] == 0
    assert taken((0.8, None), (0.8, 0.9))[0] == taken((0.8, float("nan")), (0.8, None))[0] == 0
    assert taken((0.79, 1.2), (0.8, 0.9))[0] == 1
    assert taken((0.79, 1.2), (0.8, 0.9), rows=FEW)[0] == 0
    assert taken((0.8, 1.2), (0.8, 0.9), rows=200, sure=0.6)[0] == 1, "equal, but not on the same rows"


@given(st.lists(SHARE, min_size=1, max_size=8), st.integers(1, 60), SHARE)
def test_fewer_rows_never_shut_a_gate_that_more_leave_open(values, rows, idle):
    climbed = rungs(*values)
    more, fewer = (
        gate(climbed, Next("all", 1.0), Wanted(ACCURACY, rows=count), idle=idle, step=3) for count in (rows + 30, rows)
    )
    assert fewer.answer == "Yes" or more.answer == "No"


def test_a_value_that_is_no_number_is_the_worst():
    nan = float("nan")
    assert [best_of(values, ACCURACY) for values in ([nan, 0.2], [0.3, nan], [nan, nan], [0.2, 0.2])] == [1, 0, 0, 0]
    assert best_of([3.0, 2.0, nan], RMSE) == 1


def test_where_no_rung_has_its_checkpoint_any_more_the_newest_one_is_taken():
    lost, newest = (Best(step=step, value=value, metrics={}) for step, value in ((4, 0.9), (9, 0.5)))
    ladder = object.__new__(Ladder)
    ladder._state = RunState(step=9, best=newest, rungs=[Rung(phase_index=0, best=lost, steps=9, seconds=1.0)])
    ladder._whole = lambda steps: [False for _ in steps]
    ladder.choose()
    assert ladder._state.best == newest


def test_a_rung_that_is_no_number_is_no_gain_and_is_not_as_good_as_one_that_is():
    nan = float("nan")
    assert within_values(0.8, nan, 0.01, ACCURACY) == 1.0
    assert within_values(nan, 0.8, 0.01, ACCURACY) == 0.0
    assert within_values(2.0, nan, 0.01, RMSE) == 1.0


def test_samples_that_cannot_be_read_are_none_that_tell_anything():
    unread = {"validation": list(range(12)), "train": [1]}
    ladder = SimpleNamespace(_asked=Wanted(ACCURACY, rows=40), _state=SimpleNamespace(unread=unread))
    assert Ladder._wanted.fget(ladder) == Wanted(ACCURACY, rows=28)


def test_no_rung_begins_with_weights_that_came_to_no_number():
    best = [Best(step=place, value=value, metrics={}) for place, value in enumerate([0.9, float("nan"), 0.5])]
    found = [Rung(phase_index=place, best=one, steps=1, seconds=1.0) for place, one in enumerate(best)]
    phases = [SimpleNamespace(solved=place == 0) for place in range(3)]
    run = SimpleNamespace(_state=SimpleNamespace(rungs=found), _plan=SimpleNamespace(phases=phases))
    assert Ladder._starts.fget(run) == found[2:]


# The plan.


def phases_of(auto, *, blocks=("embeddings", "layer.0", "layer.1", "layer.2", "head")):
    job = make_job("/none", "/none.csv", strategy={"type": "Auto", "auto": auto}, training={"epochs": 2})
    return compile_phases(job, blocks, 10)


def test_the_probe_takes_five_times_the_epochs_at_most_the_upper_half_on_the_way_half_and_everything_after_it_three_quarters():
    probe, upper, whole = phases_of({})
    assert [(phase.rung, phase.name, phase.steps, phase.first_step) for phase in (probe, upper, whole)] == [
        ("FeatureExtraction", "head", 100, 0),
        ("PartialFineTuning 2", "layer.2", 10, 100),
        ("FullFineTuning", "all", 15, 110),
    ]
    assert upper.trainable == ("layer.1", "layer.2", "head")
    assert [phase.plateau and phase.plateau.patience for phase in (probe, upper, whole)] == [3, None, None]


def test_rungs_are_what_one_says():
    found = phases_of(
        {
            "rungs": [
                {"type": "PartialFineTuning", "blocks": ["layer.0"], "epochs": 0.5},
                {"type": "PartialFineTuning", "lastBlocks": 1},
            ]
        }
    )
    assert [(phase.name, phase.trainable, phase.steps) for phase in found] == [
        ("layer.0", ("layer.0", "head"), 5),
        ("layer.2", ("layer.2", "head"), 20),
    ]
    assert [phase.rung for phase in found] == ["PartialFineTuning 1", "PartialFineTuning 1 (rungs[1])"]
    some = [["layer.2"], ["layer.1"], ["layer.1", "layer.2"], ["layer.0", "layer.2"], ["layer.0", "layer.1", "layer.2"]]
    rungs = phases_of({"rungs": [{"type": "PartialFineTuning", "blocks": blocks} for blocks in some]})
    names = ["layer.2", "layer.1", "layer.2-2", "layer.0", "layer.2-3"]
    assert [phase.name for phase in rungs] == names, "a status tells phases apart by their names"


def test_the_upper_half_as_the_last_rung_takes_all_epochs():
    found = phases_of({"rungs": [{"type": "FeatureExtraction"}, {"type": "PartialFineTuning"}]})
    assert [phase.steps for phase in found] == [100, 20]
    rungs = [{"type": "PartialFineTuning", "epochs": 3}, {"type": "FullFineTuning"}]
    assert [phase.steps for phase in phases_of({"rungs": rungs})] == [30, 20]
    assert [
        phase.steps for phase in phases_of({"rungs": [{"type": "FeatureExtraction"}, {"type": "FullFineTuning"}]})
    ] == [100, 20]
    some = [{"type": "PartialFineTuning", "lastBlocks": 2}, {"type": "FullFineTuning"}]
    assert [phase.steps for phase in phases_of({"rungs": some})] == [20, 20]


def test_a_small_model_has_fewer_rungs():
    assert [phase.rung for phase in phases_of({}, blocks=("layer.0", "head"))] == [
        "FeatureExtraction",
        "FullFineTuning",
    ]
    assert [phase.rung for phase in phases_of({}, blocks=("head",))] == ["FeatureExtraction"]


@pytest.mark.parametrize(
    ("rungs", "words"),
    [
        (
            [{"type": "PartialFineTuning", "blocks": ["layer.7"]}],
            "spec.strategy.auto.rungs[0].blocks: this model has no block layer.7",
        ),
        (
            [{"type": "FullFineTuning"}, {"type": "PartialFineTuning", "lastBlocks": 4}],
            "spec.strategy.auto.rungs[1] trains the same blocks as one before it (embeddings, ",
        ),
    ],
)
def test_rungs_that_make_no_sense_are_refused(rungs, words):
    with pytest.raises(JobError) as error:
        phases_of({"rungs": rungs})
    assert (error.value.reason, words in error.value.message) == ("InvalidStrategy", True), error.value.message


def test_the_course_of_the_learning_rate_is_that_of_each_rung_and_default_rungs_move_no_fingerprint():
    job = make_job("/none", "/none.csv", strategy={"type": "Auto"})
    assert job.strategy.learning_rate.scope == "Phase"
    assert [rung.type for rung in job.strategy.of(AutoSpec).rungs] == [
        "FeatureExtraction",
        "PartialFineTuning",
        "FullFineTuning",
    ]
    said = [{"type": kind} for kind in ("FeatureExtraction", "PartialFineTuning", "FullFineTuning")]
    assert (
        make_job("/none", "/none.csv", strategy={"type": "Auto", "auto": {"rungs": said}}).fingerprint()
        == job.fingerprint()
    )
    other = make_job("/none", "/none.csv", strategy={"type": "Auto", "auto": {"rungs": said[:2]}})
    assert other.fingerprint() != job.fingerprint()


# Whole runs.

slow = pytest.mark.slow


def opened(folder, **options):
    forget_accelerate()
    return run_of(folder, **options)


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def decided(folder, kind):
    return [one for one in report_of(folder)["decisions"] if one["type"] == kind]


@slow
@pytest.mark.usefixtures("one_thread")
def test_where_the_probe_suffices_nothing_else_is_trained(tmp_path):
    rungs = [{"type": "FeatureExtraction", "epochs": 60}, {"type": "PartialFineTuning"}, {"type": "FullFineTuning"}]
    run = opened(tmp_path, blind=False, auto={"target": 0.95, "rungs": rungs})
    complete(run)
    report = report_of(tmp_path)
    assert [phase["name"] for phase in report["phases"]] == ["head"]
    [rung], [strategy] = decided(tmp_path, "Rung"), decided(tmp_path, "Strategy")
    assert (rung["answer"], strategy["answer"]) == ("No", "FeatureExtraction")
    assert strategy["message"].endswith("PartialFineTuning 2, FullFineTuning not tried")
    assert report["results"]["test"]["accuracy"] > 0.9
    assert report["usefulness"]["majority"] < 0.8
    weights = torch.load(tmp_path / "model/weights.pt")
    base = run.task.build_model().module.state_dict()
    assert [name for name in weights if not torch.equal(weights[name], base[name])] == ["head.weight", "head.bias"]
    assert "How much of the model is changed?" in (tmp_path / "report.html").read_text()
    assert [one.type for one in budget.decisions(run.state.decisions)] == ["Baseline", "Rung", "Strategy"]
    assert [line["message"] for line in events(tmp_path, "decision") if line["type"] == "Strategy"] == [
        strategy["message"]
    ]


@slow
@pytest.mark.usefixtures("one_thread")
def test_where_frozen_features_tell_nothing_everything_is_trained(tmp_path):
    complete(opened(tmp_path, blind=True, epochs=12))
    report = report_of(tmp_path)
    assert [phase["name"] for phase in report["phases"]] == ["head", "norm", "all"]
    assert [one["answer"] for one in decided(tmp_path, "Rung")] == ["Yes", "Yes"]
    [strategy] = decided(tmp_path, "Strategy")
    assert strategy["answer"] == "FullFineTuning"
    assert "better than FeatureExtraction 0." in strategy["message"]
    assert report["results"]["test"]["accuracy"] > 0.7


@slow
@pytest.mark.usefixtures("one_thread")
def test_a_run_that_is_killed_at_any_gate_goes_the_same_way_bit_for_bit(tmp_path):
    auto, keep = {"minGain": 0.0}, {"everySteps": 7, "keep": 50, "afterSuccess": "Keep"}
    whole = opened(tmp_path / "whole", blind=True, auto=auto, checkpoint=keep)
    complete(whole)
    undisturbed, report = finished(tmp_path / "whole")
    firsts = [phase.first_step for phase in whole.plan.phases]
    ends = [rung.best.step for rung in whole.state.rungs]
    assert len(whole.state.rungs) == 3
    for number, step in enumerate((firsts[1], firsts[1] + 1, firsts[2], firsts[2] + 3, ends[-1] - 1)):
        run = opened(tmp_path / str(number), blind=True, auto=auto, checkpoint=keep)
        kill_at(run, step)
        with pytest.raises(Killed):
            complete(run)
        run.saver.close()
        complete(opened(tmp_path / str(number), blind=True, auto=auto, checkpoint=keep))
        tensors, other = finished(tmp_path / str(number))
        assert [name for name in tensors if not torch.equal(tensors[name], undisturbed[name])] == []
        assert other["results"] == report["results"]
        assert other["bestStep"] == report["bestStep"]
        for kind in ("Rung", "Strategy"):
            mine, theirs = decided(tmp_path / str(number), kind), decided(tmp_path / "whole", kind)
            assert [(one["step"], one["message"]) for one in mine] == [(one["step"], one["message"]) for one in theirs]


@slow
@pytest.mark.usefixtures("one_thread")
def test_a_rung_begins_with_the_best_weights_before_it_and_no_moments(tmp_path):
    run = opened(tmp_path, blind=True, auto={"minGain": 0.0})
    seen = []
    begin = run.ladder.begin

    def look(phase):
        begin(phase)
        if phase.index:
            best = max(run.state.rungs, key=lambda rung: rung.best.value).best.step
            kept = run.folder.checkpoints.load_weights(best)
            seen.append(
                all(
                    torch.equal(dict(run.engine.module.named_parameters())[name], tensor)
                    for name, tensor in kept.items()
                )
            )

    run.ladder.begin = look
    train(run)
    assert seen == [True, True]


@slow
@pytest.mark.usefixtures("one_thread")
def test_a_rung_ends_where_the_budget_is_over(tmp_path):
    run = opened(tmp_path, blind=True, auto={"budget": {"seconds": 1}}, epochs=40)

    def count():
        run.state.phase_seconds += 0.3

    run.milestones._count_time = count
    complete(run)
    report = report_of(tmp_path)
    assert [phase["name"] for phase in report["phases"]] == ["head"]
    assert run.state.step < run.plan.phases[0].steps
    [rung] = decided(tmp_path, "Rung")
    assert "no time is left, and " in rung["message"]
    assert "s of the 1 s are spent: PartialFineTuning 2 is not tried" in rung["message"]
    assert report["bestStep"] <= run.state.step


@slow
@pytest.mark.usefixtures("one_thread")
def test_a_rung_that_takes_too_long_is_not_begun(tmp_path):
    run = opened(tmp_path, blind=True, auto={"budget": {"seconds": 10_000}})
    run.plan.__class__.seconds_of, kept = lambda *_, **__: 20_000.0, run.plan.__class__.seconds_of
    try:
        complete(run)
    finally:
        run.plan.__class__.seconds_of = kept
    [rung] = decided(tmp_path, "Rung")
    assert "PartialFineTuning 2 takes about 20000 s, and " in rung["message"]
    assert [phase["name"] for phase in report_of(tmp_path)["phases"]] == ["head"]


@slow
@pytest.mark.usefixtures("one_thread")
def test_the_test_data_is_measured_once_by_the_weights_that_are_chosen(tmp_path):
    run = opened(tmp_path, blind=True)
    measured, measure = [], run.evaluator.measure

    def counted(split):
        measured.append((split, run.state.step))
        return measure(split)

    run.evaluator.measure = counted
    complete(run)
    assert [split for split, _ in measured].count("test") == 1


@slow
@pytest.mark.parametrize("engine", ["DDP", "ZeRO-2"])
def test_two_workers_decide_as_one(ranks, tmp_path, engine):
    one, other = ranks.call(auto_group.trained, tmp_path / "two", engine, 2, True)
    assert one == other
    alone = auto_group.trained(tmp_path / "one", "DDP", 1, True)
    assert one[0] == alone[0]


@slow
@pytest.mark.usefixtures("one_thread")
def test_lost_checkpoints_of_a_rung_are_said_and_done_without(tmp_path, caplog):
    run = opened(tmp_path, blind=True, auto={"minGain": 0.0})
    train(run)
    run.saver.wait()
    lost = max(run.state.rungs, key=lambda rung: rung.best.value).best.step
    if lost != run.state.step:
        (tmp_path / f"checkpoints/step-{lost}/weights.safetensors").write_bytes(b"")
    run.ladder.choose()
    assert run.state.best.step != lost or lost == run.state.step


@slow
@pytest.mark.usefixtures("one_thread")
def test_a_rung_whose_rates_destroy_is_given_up_and_those_before_it_stay(tmp_path):
    short = [{"type": "FeatureExtraction", "epochs": 0.5}, {"type": "FullFineTuning"}]
    run = opened(tmp_path, blind=False, auto={"minGain": 0.0, "rungs": short})
    after = run.work.after_step

    def destroyed(step):
        after(step)
        if run.state.phase_index == 1 and run.state.phase_steps == 3:
            run.rollbacks.go_back("the loss has burst")

    run.work.after_step = destroyed
    complete(run)
    report = report_of(tmp_path)
    assert len(report["rollbacks"]) == 2
    assert [phase["name"] for phase in report["phases"]] == ["head"]
    [strategy] = decided(tmp_path, "Strategy")
    assert strategy["answer"] == "FeatureExtraction"
    assert strategy["message"].endswith("; FullFineTuning given up, since its learning rates destroy the model")
    [warning] = [line["message"] for line in events(tmp_path, "warning")]
    assert "This rung is given up, and so are those above it" in warning
    weights, base = torch.load(tmp_path / "model/weights.pt"), run.task.build_model().module.state_dict()
    assert [name for name in weights if not torch.equal(weights[name], base[name])] == ["head.weight", "head.bias"]


@slow
@pytest.mark.usefixtures("one_thread")
def test_a_margin_of_a_loss_is_not_compared_with_shares_of_rows(tmp_path):
    """Accuracies that are alike say nothing of losses that are not: of a metric that rows do not give, its values count alone."""
    run = opened(tmp_path, blind=True, auto={"minGain": 0.05}, metric="loss")
    train(run)
    assert len(run.state.rungs) > 1
    run.saver.wait()
    assert [run.ladder._said(rung) for rung in run.state.rungs] == [None] * len(run.state.rungs)
    run.ladder.choose()
    values = [rung.best.value for rung in run.state.rungs]
    assert run.state.best.value <= min(values) + 0.05


@slow
@pytest.mark.usefixtures("one_thread")
def test_a_budget_that_is_over_at_a_checkpoint_stands_in_it(tmp_path):
    keep = {"everySteps": 1, "keep": 50, "afterSuccess": "Keep"}
    run = opened(tmp_path, blind=True, auto={"budget": {"seconds": 1}}, epochs=40, checkpoint=keep)

    def count():
        run.state.phase_seconds += 0.3

    run.milestones._count_time = count
    train(run)
    run.saver.wait()
    kept = run.folder.checkpoints.load(run.state.step).state
    assert (kept.phase_ended, kept.climbing, len(kept.rungs)) == (True, False, 1)
    assert [one.type for one in kept.decisions] == ["Rung"]


@slow
@pytest.mark.usefixtures("one_thread")
def test_a_later_rung_that_learned_nothing_is_no_reason_to_lose_the_one_that_is_taken(tmp_path):
    rungs = [{"type": "FeatureExtraction", "epochs": 60}, {"type": "FullFineTuning", "epochs": 1}]
    run = opened(tmp_path, blind=False, auto={"minGain": 0.0, "rungs": rungs})
    asked = run.ladder._gate

    def open_gate():
        found = asked()
        return found and found.model_copy(update={"answer": "Yes"})

    run.ladder._gate = open_gate
    train(run)
    probe, whole = run.state.rungs
    assert probe.best.usefulness.better
    useless = whole.best.usefulness.model_copy(update={"better": False, "gain_low": -0.4, "gain_high": -0.2})
    whole.best.usefulness, whole.best.value = useless, 0.1
    run.state.best = whole.best
    run.state.rollbacks = [Rollback(step=9, to=5, phase_index=1, factor=0.3, message="the loss has burst")]
    finish(run)
    assert report_of(tmp_path)["bestStep"] == probe.best.step
