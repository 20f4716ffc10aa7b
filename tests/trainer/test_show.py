"""What `unfreeze run` shows while it runs, without a terminal."""

import json
from datetime import UTC, datetime

import pytest

from tests.trainer.jobs import make_job
from tests.trainer.test_report import REPORT
from unfreeze_api.contracts.decision import Decision
from unfreeze_api.contracts.progress import Progress, Recovery
from unfreeze_trainer.commands import show


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(show, "_POLL_SECONDS", 0)


def shown(capsys, *looks: tuple[Progress | None, str]) -> list[str]:
    left = list(looks)
    show.show_progress(make_job("/none", "/none.csv"), lambda: left[0][0], lambda: not left, lambda: left.pop(0)[1])
    return capsys.readouterr().out.splitlines()[1:]


def test_what_is_broken_is_said_once(capsys):
    lost = Recovery(
        step=3, time=datetime(2026, 1, 1, tzinfo=UTC), message="step-4: ...: the training resumed from step 3"
    )
    going_on = Progress(recovery=lost, step=4, total_steps=9, phase_count=1, phase_name="all")
    assert shown(capsys, (Progress(), ""), (going_on, ""), (going_on, "")) == [
        "broken checkpoint: step-4: ...: the training resumed from step 3",
        "phase 1/1 all (step 4 of 9)",
    ]


def test_start_and_export_say_what_they_do(capsys):
    training = Progress(step=2, total_steps=9, phase_count=1, phase_name="all")
    measured = training.model_copy(update={"step": 9, "metrics": {"accuracy": 0.5}})
    exporting = measured.model_copy(update={"activity": "Exporting"})
    assert shown(
        capsys,
        (None, ""),
        (Progress(), "loading the model"),
        (Progress(), "loading the model"),
        (training, ""),
        (measured, "taking the best weights"),
        (exporting, "writing Model to /run/model"),
    ) == [
        "starting: loading the model",
        "phase 1/1 all (step 2 of 9)",
        "phase 1/1 all: accuracy 0.500 (step 9 of 9)",
        "phase 1/1 all: taking the best weights",
        "exporting: writing Model to /run/model",
    ]


def test_a_warning_that_was_printed_is_not_again(capsys, tmp_path):
    job = make_job("/none", "/none.csv", output={"destination": f"file://{tmp_path}"})
    lines = [json.dumps({"event": "warning", "message": message}) for message in ("labels differ", "texts are cut")]
    (tmp_path / "events.jsonl").write_text("\n".join(lines))
    (tmp_path / "report.json").write_text(
        REPORT.model_copy(update={"warnings": ["labels differ", "texts are cut", "it went back"]}).to_json()
    )
    warned, left = {"labels differ"}, [Progress(total_steps=9, phase_count=1, phase_name="all")]
    show.show_progress(job, lambda: left[0], lambda: not left, lambda: left.pop() and "", warned)
    show.closing_table(job, warned)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert said == ["warning: texts are cut", "warning: it went back"]


def test_the_end_begins_with_the_first_sentence_of_the_page_and_says_each_warning_once(capsys, tmp_path):
    told = {"question": "?", "step": 9}
    decisions = [
        Decision(type="Rates", answer="1", message="rates are so", **told),
        Decision(type="Baseline", answer="No", message="a classical model is better", warning=True, **told),
        Decision(type="Strategy", answer="All", message="everything is trained", **told),
    ]
    (tmp_path / "report.json").write_text(REPORT.model_copy(update={"decisions": decisions}).to_json())
    (tmp_path / "report.html").touch()
    show.closing_table(make_job("/none", "/none.csv", output={"destination": f"file://{tmp_path}"}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("A classical model is better. The model's accuracy is 0.800 on ")
    assert lines[1:3] == ["decided: Strategy: everything is trained", "decided: Rates: rates are so"]
    assert sum("classical" in line for line in lines) == 1
    assert f"all of it on one page: {tmp_path}/report.html" in lines
