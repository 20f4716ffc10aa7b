"""Phases that end before their last step: by early stopping, or when they no longer improve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainer.complete import complete
from tests.trainer.engine_group import forget_accelerate
from tests.trainer.interrupted import Killed, events, job_in, kill_at, run_in
from tests.trainer.mlp import MLPTask
from unfreeze_api.contracts.decision import Decision
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.exports.report import finished_progress, read_report
from unfreeze_trainer.training.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def test_early_stopping_ends_the_phase_and_the_plan_goes_on(tmp_path):
    run = run_in(tmp_path, earlyStopping={"patience": 1, "minDelta": 10.0}, evaluate={"everySteps": 2})
    many = [Decision(type="EarlyStopping", answer="No", question="", message="", step=step) for step in range(65)]
    run.state.decisions = many  # as of a model of so many blocks: more than a progress takes
    complete(run)
    assert finished_progress(read_report(tmp_path)).percent == 100
    second_evaluation = [(phase.first_step // 2 + 2) * 2 - phase.first_step for phase in run.plan.phases]
    assert [phase.steps for phase in run.state.phases] == second_evaluation
    assert run.state.step == run.plan.phases[-1].first_step + second_evaluation[-1]


PLATEAU = {
    "type": "GradualUnfreezing",
    "gradualUnfreezing": {"blocksPerPhase": 2, "stepsPerPhase": 12, "untilPlateau": {"patience": 1, "minDelta": 10.0}},
}


def plateau_run(folder: Path) -> Run:
    forget_accelerate()
    training = {"evaluate": {"everySteps": 4}, "checkpoint": {"everySteps": 1, "keep": 100}}
    job = job_in(folder, strategy=PLATEAU, **training)
    task = MLPTask(norm=True)
    return Run(job, task, task.build_model(), open_engine(job), None)


def test_a_plateau_ends_every_phase_but_the_last(tmp_path):
    run = plateau_run(tmp_path)
    complete(run)
    *others, last = run.plan.phases
    assert [phase.steps for phase in run.state.phases] == [*([8] * len(others)), last.steps]
    assert all(phase.steps == 12 for phase in others)
    assert run.state.step == run.plan.total_steps
    report = json.loads((tmp_path / "report.json").read_text())
    found = [one for one in report["decisions"] if one["type"] == "EarlyStopping"]
    assert [one["step"] for one in found] == [phase.first_step + 8 for phase in others]
    assert found[0]["message"].startswith(
        f"phase {others[0].name} ends at step 8, 4 before its last: evaluations in a row"
    )
    assert [line["message"] for line in events(tmp_path, "decision")] == [one["message"] for one in report["decisions"]]
    assert report["decisions"][-1]["type"] == "Useful"
    assert "ends at step 8, 4 before its last" in (tmp_path / "report.html").read_text()


def test_a_plateau_is_found_again_after_a_stop(tmp_path):
    run = plateau_run(tmp_path)
    kill_at(run, 6)  # one evaluation has been the best of the phase, the next one ends it
    with pytest.raises(Killed):
        complete(run)
    run.saver.close()
    again = plateau_run(tmp_path)
    assert (again.state.step, again.state.phase_best is None) == (6, False)
    complete(again)
    assert again.state.phases[0].steps == 8
    ended = [line["step"] for line in events(tmp_path, "decision") if line["type"] == "EarlyStopping"]
    assert ended == [phase.first_step + 8 for phase in again.plan.phases[:-1]]
