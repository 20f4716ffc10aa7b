"""What a trainer may say: bounds that hold whatever it would like to say, and change nothing that today's trainers say."""

import json
from functools import cache

import pytest
from hypothesis import given

from tests.crds.test_contracts import MANY, PROGRESS
from unfreeze_api.contracts import budget
from unfreeze_api.contracts.progress import DecisionInfo, PhaseResult, Progress, Recovery
from unfreeze_api.tasks import TASKS

HONEST = {"accuracy": 0.8123456789012345, "macroF1": 0.7, "balancedAccuracy": 0.6, "loss": 0.5}
WIDE = "x" * 128


def ended(name, metrics=HONEST):
    return PhaseResult(name=name, steps=9, seconds=1.5, trainable_parameters=7, metrics=metrics)


def names(number, length=128):
    """Return as many different names of this length."""
    return [f"m{number:05}".ljust(length, "x") for number in range(number)]


@cache
def largest(length):
    """Return the largest answer that the contract knows, with names of a length."""
    values = [-1.2345678901234567e-300] * 1024
    metrics = dict(zip(names(32, length), values, strict=False))
    return Progress(
        step=2**53,
        total_steps=2**53,
        phase_index=2**53,
        phase_count=2**53,
        phase_name=names(1, length)[0],
        metrics=metrics,
        learning_rates=dict(zip(names(1024, length), values, strict=False)),
        recovery=Recovery(step=1, time="2026-01-01T00:00:00Z", message="\x00" * 1024),
        phases=[
            PhaseResult(name=name, steps=2**53, seconds=1e300 / 3, trainable_parameters=2**53, metrics=metrics)
            for name in names(1024, length)
        ],
        results=dict(zip(names(64, length), values, strict=False)),
        decisions=[decided(step, "<" * 64, "<" * 1024) for step in range(2**53 - 64, 2**53)],
    )


def decided(step, answer="No", message="the classical model is not worse", kind="B" * 32):
    return DecisionInfo(type=kind, answer=answer, message=message, step=step, warning=True)


def test_an_honest_answer_is_not_changed():
    said = Progress(
        phase_name="layer.11",
        metrics=HONEST,
        learning_rates={"embeddings": 1e-5, **{f"layer.{n}": 1e-4 for n in range(96)}, "pooler": 1e-3, "head": 1e-2},
        phases=[ended(name) for name in ("head", *(f"layer.{n}" for n in reversed(range(24))), "all")],
        results={f"{split}.{name}": value for split in ("validation", "test") for name, value in HONEST.items()},
    )
    assert budget.bounded(said) == said


@pytest.mark.parametrize("length", [128, 63, 8])
def test_the_largest_answer_fits(length):
    said = largest(length)
    assert len(said.to_json()) > 2 * budget.MAX_PROGRESS_BYTES
    assert len(budget.bounded(said).to_json().encode()) <= budget.MAX_PROGRESS_BYTES


@pytest.mark.slow
@MANY
@given(PROGRESS)
def test_any_answer_fits_and_is_cut_once(said):
    bounded = budget.bounded(said, "accuracy")
    assert len(bounded.to_json().encode()) <= budget.MAX_PROGRESS_BYTES
    assert budget.bounded(bounded, "accuracy") == bounded
    assert Progress.model_validate_json(bounded.to_json()) == bounded


def test_the_newest_phases_stay():
    bounded = budget.bounded(Progress(phases=[ended(f"layer.{number}") for number in range(100)]))
    assert [phase.name for phase in bounded.phases] == [f"layer.{number}" for number in range(36, 100)]


def test_the_jobs_own_metric_stays_before_others():
    many = {f"m{number}": 0.5 for number in range(30)} | {"accuracy": 0.9}
    bounded = budget.bounded(
        Progress(metrics=many, results={f"test.{name}": value for name, value in many.items()}), "accuracy"
    )
    assert list(bounded.metrics) == [*(f"m{number}" for number in range(7)), "accuracy"]
    assert len(bounded.results) == budget.MAX_RESULTS
    assert bounded.results["test.accuracy"] == 0.9


def test_figures_of_each_class_are_no_metrics():
    labels = ("cat", "dog", "great white shark", "ÄÖÜ", "a/b")
    per_class = {
        f"{name}{mark}{label}": 0.5
        for name in ("f1", "recall")
        for mark in ("/", ".", ":", "-", " ")
        for label in labels
    }
    per_class |= {f"f1[{label}]": 0.5 for label in labels} | {f"f1{{label={label}}}": 0.5 for label in labels}
    assert budget.metrics(per_class | HONEST) == HONEST
    assert len(json.dumps(budget.metrics({f"f1_{number}": 0.5 for number in range(10_000)}))) < 200


def test_every_metric_that_a_job_can_name_has_a_place():
    for metrics in (metrics for task in TASKS for metrics in (task.metrics, task.multi_label, task.of_scores)):
        names = [metric.name for metric in metrics]
        assert list(budget.metrics(dict.fromkeys(names, 1.0))) == names


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("layer.11", "layer.11"),
        ("", ""),
        ("model/encoder layer", "model-encoder-layer"),
        ("_norm", "norm"),
        ("€", "unnamed"),
        ("x" * 70 + ".11", "5161ff66-" + "x" * 51 + ".11"),
    ],
)
def test_names_of_blocks(name, told):
    assert budget.block(name) == told
    assert budget.block(told) == told


@pytest.mark.parametrize("character", ["x", "<", "€", "\N{LINE SEPARATOR}", "\N{ICE CUBE}", "\x00"])
def test_the_newest_decisions_stay_in_256_bytes_each(character):
    kept = budget.bounded(
        Progress(decisions=[decided(step, character * 64, character * 1024) for step in range(20)])
    ).decisions
    assert [one.step for one in kept] == list(range(12, 20))
    for one in kept:
        as_go = one.to_json().replace("<", "\\u003c").replace("\N{LINE SEPARATOR}", "\\u2028")
        assert 200 < len(as_go.encode()) <= budget.MAX_DECISION_BYTES
        assert one.message.rstrip("…") == character * (len(one.message) - 1)
    assert [budget.decision(one) for one in kept] == kept


def test_decisions_of_jobs_that_set_nothing_new_are_not_for_the_first_operators():
    said = Progress(decisions=[decided(1, kind="EarlyStopping"), decided(2, kind="Useful")])
    assert "decisions" not in json.loads(budget.bounded(said).to_json())
