"""Contracts between pods and operator: they survive JSON, and a termination message always fits."""

import json
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze_api.progress import (
    CheckpointInfo,
    PhaseResult,
    Progress,
    ProgressInfo,
    Recovery,
    TerminationMessage,
)
from unfreeze_api.status import FineTuneJobStatus


def model(kind, **fields):
    """Return a strategy for a model; st.builds would add the fields' wire names on its own."""
    return st.fixed_dictionaries(fields).map(lambda values: kind(**values))


KUBERNETES_KEEPS = 4096  # bytes of a termination message, https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure
MANY = settings(max_examples=50)
WHOLE = st.integers(0, 2**53)
REAL = st.floats()  # a training may diverge
TEXT = st.text(st.characters(exclude_categories=("Cs",)))
METRICS = st.dictionaries(TEXT.filter(lambda text: len(text) <= 40), REAL, max_size=8)
TIMES = st.datetimes(timezones=st.just(UTC), min_value=datetime(2020, 1, 1))  # noqa: DTZ001 - the strategy adds it
CHECKPOINTS = st.none() | model(CheckpointInfo, step=WHOLE, time=TIMES)
RECOVERIES = st.none() | model(Recovery, step=WHOLE, time=TIMES, message=st.text(max_size=1024))
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


@given(st.text() | st.sampled_from(["", "null", "[]", "{}", "1", '{"outcome": "Odd", "reason": ""}']))
def test_anything_else_in_the_termination_log_is_nothing(text):
    assert TerminationMessage.from_termination_log(text) is None


def test_status_round_trips_without_what_is_not_set():
    status = FineTuneJobStatus(phase="Running", observed_generation=1)
    assert json.loads(status.to_json())["phase"] == "Running"
    assert "failure" not in json.loads(status.to_json())
    assert FineTuneJobStatus.model_validate_json(status.to_json()) == status
