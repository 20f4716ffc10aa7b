"""What a run decides is kept with its state and written once, wherever it stops."""

import json
import re

from tests.cluster.cluster import REPOSITORY
from tests.trainer.test_run_folder import open_folder
from unfreeze_api.contracts import budget
from unfreeze_api.contracts.decision import Decision, Evidence
from unfreeze_api.contracts.progress import Progress
from unfreeze_trainer.runs.state import RunState
from unfreeze_trainer.training.decisions import Decisions


def decision(step=3, answer="No", kind="Baseline"):
    return Decision(
        type=kind,
        answer=answer,
        question="Is the model better than a classical one?",
        message="it is not",
        step=step,
        evidence=[Evidence(name="accuracy", value=float("nan"), low=0.1, high=0.2)],
        seconds=1.23456,
        otherwise="an interval above 0",
        alternative="no comparison",
    )


def lines(folder):
    text = (folder / "events.jsonl").read_text()
    return [(line["step"], line["type"], line["answer"]) for line in map(json.loads, text.splitlines())]


def test_a_decision_is_in_state_and_events_with_its_evidence(tmp_path):
    state, folder = RunState(), open_folder(tmp_path)
    Decisions(state, folder.events).add(decision())
    (line,) = folder.events.read("decision")
    assert line.pop("time")
    assert line == {
        "event": "decision",
        "step": 3,
        "type": "Baseline",
        "question": "Is the model better than a classical one?",
        "answer": "No",
        "message": "it is not",
        "warning": False,
        "evidence": [{"name": "accuracy", "low": 0.1, "high": 0.2}],
        "seconds": 1.235,
        "otherwise": "an interval above 0",
        "alternative": "no comparison",
    }
    assert RunState.model_validate_json(state.model_dump_json()).decisions == [decision()]


def test_one_that_is_decided_again_after_a_crash_is_not_doubled(tmp_path):
    """The checkpoint that a run resumes from may be older than what it has decided."""
    state, folder = RunState(), open_folder(tmp_path)
    decisions = Decisions(state, folder.events)
    decisions.add(decision(kind="Range", step=0))
    before = state.model_copy(deep=True)
    decisions.add(decision())
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event": "decision", "st')
    (tmp_path / "events.jsonl").write_text((tmp_path / "events.jsonl").read_text() + "\n")
    again = Decisions(before, open_folder(tmp_path).events)
    again.add(decision())
    again.add(decision())
    assert [one.key for one in before.decisions] == [(0, "Range"), (3, "Baseline")]
    (tmp_path / "events.jsonl").write_text(
        (tmp_path / "events.jsonl").read_text().replace('{"event": "decision", "st\n', "")
    )
    assert lines(tmp_path) == [(0, "Range", "No"), (3, "Baseline", "No")]
    again.add(decision(answer="Yes"))
    assert [one.answer for one in before.decisions] == ["No", "Yes"]
    assert lines(tmp_path)[2:] == [(3, "Baseline", "Yes")]


def test_a_rank_that_may_not_write_has_them_in_its_state_alone(tmp_path):
    state, folder = RunState(), open_folder(tmp_path / "run", writes=False)
    Decisions(state, folder.events).add(decision())
    assert len(state.decisions) == 1
    assert not (tmp_path / "run").exists()


def test_a_progress_takes_the_newest_of_any_number_and_no_early_ends():
    """A job with as many phases as blocks may end each of them early."""
    ends = [decision(step, kind="EarlyStopping") for step in range(100)]
    many = [decision(step) for step in range(100)]
    assert Progress(decisions=budget.taken(ends)).decisions == []
    kept = Progress(decisions=budget.taken([*ends, *many, *ends])).decisions
    assert kept == [one.info() for one in many[-64:]]


def test_the_types_that_have_a_series_are_those_that_are_explained():
    text = (REPOSITORY / "docs/judgement.md").read_text().split("\n| Type | Question |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == budget.DECISIONS | budget.RECORDED_ONLY
