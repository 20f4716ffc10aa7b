"""What falls on which step of a plan."""

from dataclasses import replace

import pytest

from tests.trainer.jobs import make_job
from unfreeze_trainer.runs.state import RunState
from unfreeze_trainer.training.plan import Plan
from unfreeze_trainer.training.work import Work

BLOCKS = ["embeddings", "layer.0", "head"]


def plan_of(**training) -> Plan:
    """A head for 6 steps, then all for 6; an epoch has 4."""
    strategy = {"type": "LinearProbeThenFineTune", "linearProbeThenFineTune": {"probeEpochs": 1.5}}
    whole = {"epochs": 3, "batchSize": 5, "checkpoint": {"everySteps": 5}} | training
    job = make_job("/none", "/none.csv", strategy=strategy, training=whole)
    return Plan.of(job, BLOCKS, samples=18, steps_per_epoch=4)


def steps(plan: Plan) -> list[tuple[int, int]]:
    """Return (index of the phase, steps done when one of its own is)."""
    return [(phase.index, phase.first_step + n) for phase in plan.phases for n in range(1, phase.steps + 1)]


def test_an_evaluation_falls_on_its_interval_and_on_the_end_of_each_phase():
    plan = plan_of()
    assert plan.total_steps == 12
    assert [step for index, step in steps(plan) if plan.ends_at(step, index)] == [6, 12]
    assert [step for index, step in steps(plan) if plan.evaluates_at(step, index)] == [4, 6, 8, 12]
    often = plan_of(evaluate={"everySteps": 5})
    assert [step for index, step in steps(often) if often.evaluates_at(step, index)] == [5, 6, 10, 12]
    for one in (plan, often):
        for index, phase in enumerate(one.phases):
            for step in range(phase.first_step, phase.first_step + phase.steps + 1):
                left = [
                    later for of, later in steps(one) if of == index and later > step and one.evaluates_at(later, index)
                ]
                assert one.reads_left(step, index)["validation"] == len(left)


def test_a_start_late_in_a_phase_keeps_what_the_first_one_kept():
    plan, work = plan_of(), object.__new__(Work)
    work._plan = plan
    for step, train in ((0, 1.5), (5, 1.5), (6, 0.0)):
        work._state = RunState(step=step)
        assert work._reads(plan.phases[0]) == {"train": train, "validation": 2}


def test_of_phases_that_share_a_cut_one_pass_computes_it_however_short_the_first_ones_are():
    plan = plan_of()
    assert [plan.spared(index) for index in (0, 1)] == [0.5, 0.5]
    assert [replace(plan, shared={0: 1, 1: 1}).spared(index) for index in (0, 1)] == [0.5, 1.5]
    probe = replace(plan.phases[0], steps=2)
    short = replace(plan, phases=[probe, replace(plan.phases[1], first_step=2)], shared={0: 1, 1: 1})
    assert [short.spared(index) for index in (0, 1)] == [0.0, 1.0]


def test_a_checkpoint_falls_on_its_own_interval():
    plan = plan_of()
    assert [step for _, step in steps(plan) if plan.saves_at(step)] == [5, 10]


def test_what_is_left_of_a_plan_is_work_and_evaluations():
    plan = plan_of(evaluate={"everySteps": 5})
    whole = plan.seconds_left(0, 0, work_seconds=1.0, evaluation_seconds=0.0)
    work = [6 * plan.step_work(phase) * 18 / 4 for phase in plan.phases]
    assert whole == round(sum(work))
    assert plan.seconds_left(6, 1, work_seconds=1.0, evaluation_seconds=0.0) == round(work[1])
    assert plan.seconds_left(12, 1, work_seconds=1.0, evaluation_seconds=10.0) == pytest.approx(10)
    assert plan.seconds_left(0, 0, work_seconds=0.0, evaluation_seconds=10.0) == 40
    never = replace(plan, held_out=100)  # evaluated so far: four times 100 forward passes are to come
    assert never.seconds_left(0, 0, work_seconds=1.0, evaluation_seconds=0.0) == whole + 400
    assert never.seconds_left(0, 0, work_seconds=1.0, evaluation_seconds=10.0) == whole + 40


def test_a_head_over_what_is_computed_once_does_not_tell_what_later_phases_cost():
    plan = replace(plan_of(), held_out=10)
    cached = replace(plan, starts={0: len(plan.blocks) - 1})
    head, rest = (6 * cached.step_work(phase) * 18 / 4 for phase in cached.phases)
    of_head, of_rest = 2 * 3, 2 * 10
    evaluations = [len([at for at in (4, 6, 8, 12) if low < at <= high]) for low, high in ((0, 6), (6, 12))]
    said = cached.seconds_left(0, 0, work_seconds=0.01, evaluation_seconds=3.0, pass_seconds=1.0)
    assert (evaluations, said) == ([2, 2], round(0.01 * head + of_head + rest + of_rest))
    three = replace(cached, starts={**cached.starts, 1: 1})  # lower blocks compute once more, for the other cut
    rest, below = 6 * three.step_work(three.phases[1]) * 18 / 4, three.share_below(1)
    said = three.seconds_left(6, 1, work_seconds=1.0, evaluation_seconds=3.0, pass_seconds=1.0)
    assert said == round(rest + 2 * 3)
    said = three.seconds_left(0, 0, work_seconds=0.01, evaluation_seconds=3.0, pass_seconds=1.0)
    assert said == round(0.01 * head + of_head + rest + 18 * below + 2 * 10 * (1 - below))
