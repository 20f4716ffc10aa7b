"""Contracts between pods and operator: they survive JSON and other versions, and a termination message always fits."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support.newer import KEY, planted
from unfreeze_api.contracts import budget
from unfreeze_api.contracts.progress import (
    CheckpointInfo,
    DecisionInfo,
    PhaseResult,
    Progress,
    ProgressInfo,
    Recovery,
    TerminationMessage,
)
from unfreeze_api.contracts.status import Condition, FineTuneJobStatus, StateSeconds


def model(kind, **fields):
    """Return a strategy for a model; st.builds would add the fields' wire names on its own."""
    return st.fixed_dictionaries(fields).map(lambda values: kind(**values))


KUBERNETES_KEEPS = 4096  # bytes of a termination message, https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure
MANY = settings(max_examples=50)
WHOLE = st.integers(0, 2**53)
REAL = st.floats()  # a training may diverge
TEXT = st.text(st.characters(exclude_categories=("Cs",)))
METRICS = st.dictionaries(TEXT.filter(lambda text: len(text) <= 40), REAL, max_size=8)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - it adds it
CHECKPOINTS = st.none() | model(CheckpointInfo, step=WHOLE, time=TIMES)
RECOVERIES = st.none() | model(Recovery, step=WHOLE, time=TIMES, message=st.text(max_size=1024))
DECISIONS = model(
    DecisionInfo,
    type=st.sampled_from(["Baseline", "Scratch", "Range"]),
    answer=st.text(max_size=64),
    message=st.text(max_size=1024),
    step=WHOLE,
    warning=st.none() | st.just(True),
)
PHASES = st.lists(
    model(
        PhaseResult,
        name=st.text(max_size=128),
        steps=WHOLE,
        seconds=st.floats(0, 1e9),
        trainable_parameters=WHOLE,
        metrics=METRICS,
    ),
    max_size=40,
)
PROGRESS = model(
    Progress,
    percent=st.integers(0, 100),
    step=WHOLE,
    total_steps=WHOLE,
    phase_name=st.text(max_size=128),
    loss=st.none() | REAL,
    metrics=METRICS,
    learning_rates=st.dictionaries(st.text(max_size=60), REAL, max_size=60),
    checkpoint=CHECKPOINTS,
    recovery=RECOVERIES,
    phases=PHASES,
    results=METRICS,
    decisions=st.none() | st.lists(DECISIONS, max_size=12),
)
MESSAGES = model(
    TerminationMessage,
    outcome=st.sampled_from(["Succeeded", "Failed", "Stopped"]),
    reason=st.text(max_size=64),
    message=TEXT | st.integers(0, 9000).map(lambda n: "€" * n),
    exit_code=st.integers(0, 255),
    checkpoint=CHECKPOINTS,
    log_tail=TEXT | st.integers(0, 20000).map(lambda n: "\x00ü\n\U0001f600"[n % 4] * n),
    progress=st.none() | PROGRESS,
)


@pytest.mark.slow
@MANY
@given(PROGRESS)
def test_progress_round_trips_and_its_part_for_the_status_stands_alone(progress):
    assert Progress.model_validate_json(progress.to_json()) == progress
    info = progress.info()
    assert ProgressInfo.model_validate_json(info.to_json()) == info
    assert (info.step, info.metrics) == (progress.step, progress.metrics)


@MANY
@given(MESSAGES)
def test_termination_message_fits_and_keeps_what_matters(message):
    log = message.to_termination_log()
    assert len(log.encode()) <= KUBERNETES_KEEPS
    read = TerminationMessage.from_termination_log(log)
    assert read is not None
    assert (read.outcome, read.reason, read.exit_code) == (message.outcome, message.reason, message.exit_code)
    assert read.checkpoint == message.checkpoint
    assert message.message.startswith(read.message)
    assert message.log_tail.endswith(read.log_tail)
    if len(message.to_json().encode()) <= KUBERNETES_KEEPS:
        assert read == message


def test_results_outlive_a_long_traceback():
    message = TerminationMessage(
        outcome="Failed", reason="Error", log_tail="x" * 9000, progress=Progress(results={"test.accuracy": 0.9})
    )
    read = TerminationMessage.from_termination_log(message.to_termination_log())
    assert read.progress.results == {"test.accuracy": 0.9}
    assert len(read.log_tail) > 3000


def test_decisions_outlive_all_that_a_run_has_to_say():
    long = [DecisionInfo(type="Baseline", answer="No", message="x" * 1024, step=step) for step in range(8)]
    decisions = budget.decisions(long)
    many = {f"validation.{'m' * 40}{number}": 0.12345678901234567 for number in range(19)}
    message = TerminationMessage(
        outcome="Succeeded",
        reason="Completed",
        message="The classical model is not worse. " * 40,
        progress=Progress(
            phase_name="n" * 63,
            metrics=dict.fromkeys(many, 0.123456789),
            learning_rates=dict.fromkeys(many, 1e-5),
            phases=[PhaseResult(name="n" * 63, steps=1, seconds=1.5, trainable_parameters=7)] * 9,
            results=many,
            decisions=decisions,
        ),
    )
    read = TerminationMessage.from_termination_log(message.to_termination_log())
    assert read.progress.decisions == decisions
    assert len(read.progress.results) == 8
    assert read.message.startswith("The classical model is not worse.")


@given(
    st.text().filter(lambda text: '"outcome"' not in text)
    | st.sampled_from(["", "null", "[]", "{}", "1", '{"outcome": "Odd"}', '{"outcome": 1, "reason": ""}'])
)
def test_anything_else_in_the_termination_log_is_nothing(text):
    assert TerminationMessage.from_termination_log(text) is None


def test_status_round_trips_without_what_is_not_set():
    status = FineTuneJobStatus(phase="Running", observed_generation=1)
    assert json.loads(status.to_json())["phase"] == "Running"
    assert "failure" not in json.loads(status.to_json())
    assert FineTuneJobStatus.model_validate_json(status.to_json()) == status


def newer(model, **change):
    """Return what a later version would have written in place of a model."""
    return json.dumps(planted(json.loads(model.to_json())) | change)


@pytest.mark.slow
@MANY
@given(PROGRESS)
def test_what_a_later_version_says_besides_is_ignored(progress):
    assert Progress.read(newer(progress)) == progress
    message = TerminationMessage(outcome="Failed", reason="Hang", checkpoint=progress.checkpoint, progress=progress)
    assert TerminationMessage.from_termination_log(newer(message)) == message


def test_what_is_made_here_is_strict():
    for model in (Progress(), TerminationMessage(outcome="Failed", reason="Hang"), FineTuneJobStatus()):
        with pytest.raises(ValidationError, match=KEY):
            type(model).model_validate_json(newer(model))
    for odd in ({"state": "Judging"}, {"state": 1}):
        with pytest.raises(ValidationError, match="state"):
            Progress(**odd)
    with pytest.raises(ValidationError, match="state"):
        Progress.read('{"state": 1}')


@pytest.mark.parametrize(("step", "state"), [(0, "Starting"), (7, "Training")])
def test_a_state_that_is_not_known_hides_nothing_else(step, state):
    progress = Progress(step=step, percent=3, checkpoint=CheckpointInfo(step=5, time=datetime(2026, 1, 1, tzinfo=UTC)))
    assert Progress.read(newer(progress, state="Judging")) == progress.model_copy(update={"activity": state})


def test_an_outcome_that_is_not_known_is_a_failure_with_its_own_reason():
    told = TerminationMessage(
        outcome="Failed", reason="NotWorthIt", message="m", exit_code=2, progress=Progress(step=7)
    )
    assert TerminationMessage.from_termination_log(newer(told, outcome="Refused")) == told


def test_a_status_of_a_later_operator_keeps_what_is_known():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    kept = Condition(type="Running", status="True", reason="PodsRunning", last_transition_time=now)
    status = FineTuneJobStatus(
        phase="Running",
        conditions=[kept],
        state_seconds=StateSeconds(state="Training", since=now),
        accelerator_seconds=7,
    )
    raw = json.loads(newer(status))
    raw["conditions"].insert(0, raw["conditions"][0] | {"type": "Harmless"})
    raw["phase"], raw["stateSeconds"]["state"] = "Judging", "Judging"
    starting = status.state_seconds.model_copy(update={"state": "Starting"})
    assert FineTuneJobStatus.read(json.dumps(raw)) == status.model_copy(
        update={"phase": None, "state_seconds": starting}
    )
    raw["conditions"][0]["status"] = "Perhaps"
    assert FineTuneJobStatus.read(json.dumps(raw)).conditions == [kept]
    del raw["conditions"][1]["reason"]
    with pytest.raises(ValidationError, match=r"conditions\.0\.reason"):
        FineTuneJobStatus.read(json.dumps(raw))
