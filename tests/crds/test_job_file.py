"""job.json of an operator that is newer, older, or no operator: what a trainer makes of it."""

import json
from typing import Annotated, get_args

import pytest
from pydantic import Field

from tests.crds.corpus import load
from unfreeze_api.apiserver.validate import load_job
from unfreeze_api.contracts.first_fields import FIRST_FIELDS
from unfreeze_api.contracts.job_file import JobFileError, ignored_fields, read_job
from unfreeze_api.contracts.resolved import Columns, ResolvedJob, ResolvedStrategy, schema_version
from unfreeze_api.grammar.model import EXECUTION, Model, Since
from unfreeze_api.resolve import resolve
from unfreeze_api.spec.data import TaskSpec
from unfreeze_api.spec.strategy import STRATEGIES
from unfreeze_api.tasks import TASKS, columns

JOB = resolve("job", "default", load_job(load("base.yaml")).spec, rendezvous_host="host")


def job_file(**change):
    return json.dumps(json.loads(JOB.to_json()) | change)


def refusal(text):
    with pytest.raises(JobFileError) as caught:
        read_job(text)
    return caught.value.reason, str(caught.value)


def test_fields_that_are_not_known_are_ignored_at_every_depth_and_named():
    raw = json.loads(JOB.to_json())
    for part in (
        raw,
        raw["training"],
        raw["training"]["checkpoint"],
        raw["strategy"]["learningRate"],
        raw["data"]["train"],
    ):
        part["fresh"] = {"deep": [1]}
    text = json.dumps(raw)
    assert read_job(text) == JOB
    assert sorted(ignored_fields(text)) == [
        "data.train.fresh",
        "fresh",
        "strategy.learningRate.fresh",
        "training.checkpoint.fresh",
        "training.fresh",
    ]
    assert ignored_fields(JOB.to_json()) == []


@pytest.mark.parametrize("version", [3, 0, -1, 10**30, "1", 1.5, True, None, [1], {"major": 1}])
def test_another_schema_version_is_told_before_anything_else_is_judged(version):
    for text in (job_file(schemaVersion=version), json.dumps({"schemaVersion": version, "training": "odd"})):
        reason, message = refusal(text)
        assert reason == "UnsupportedJobFile"
        assert f"it has schemaVersion {json.dumps(version)}, and this version of Unfreeze reads 1 and 2:" in message
        assert "Set the trainer image that belongs to the operator" in message


def test_without_a_schema_version_it_is_the_first():
    raw = json.loads(JOB.to_json())
    del raw["schemaVersion"]
    assert read_job(json.dumps(raw)) == JOB


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON: EOF"),
        (b"\xff", "not JSON: "),
        ("[" * 10000, "not JSON: "),
        ("[]", "not a JSON object"),
        ("{}", "name: Field required; namespace: Field required; model: Field required; "),
        (job_file(training={"epochs": -1}), "training.epochs: Input should be greater than 0"),
        (job_file(strategy={"type": "Fresh"}), "strategy.type: Input should be 'FeatureExtraction', "),
    ],
)
def test_what_is_no_job_is_an_error_that_names_the_field(text, message):
    reason, told = refusal(text)
    assert reason == "InvalidJob"
    assert told.startswith(message)
    assert len(told) < 1000


def test_what_is_written_here_stays_strict():
    with pytest.raises(ValueError, match="fresh"):
        ResolvedJob.model_validate(json.loads(JOB.to_json()) | {"fresh": 1})


class Options(Model):
    rate: Annotated[float, Since(3)] = 0.5


class Job(Model):
    pooling: Annotated[str, Since(2)] = "First"
    options: Options = Options()
    stages: list[Options] = Field(default=[])


def test_a_field_that_must_not_be_ignored_raises_the_version_where_it_is_set():
    assert schema_version(Job()) == 1
    assert schema_version(Job(pooling="First", options=Options(rate=0.5), stages=[Options()])) == 1
    assert schema_version(Job(pooling="Mean")) == 2
    assert schema_version(Job(pooling="Mean", options=Options(rate=1))) == 3
    assert schema_version(Job(stages=[Options(), Options(rate=1)])) == 3
    assert JOB.schema_version == 1
    skip = JOB.data.model_copy(update={"on_error": "Skip"})
    assert schema_version(JOB.model_copy(update={"data": skip})) == 2


def unmarked(model, known, path=""):
    """Yield the fields that the first trainers did not know and that later ones would ignore though they change what is
    learned."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        if name in of_new_tasks(model):  # which they refuse by their name
            continue
        if EXECUTION in field.metadata or any(isinstance(mark, Since) for mark in field.metadata):
            continue
        if key not in known:
            yield path + key
        elif known[key] and (inner := model_of(field.annotation)):
            yield from unmarked(inner, known[key], f"{path}{key}.")


def of_new_tasks(model):
    """Return the fields of a model that only tasks, or strategies, have which the first trainers did not know."""
    known = [task for task in TASKS if task.member in FIRST_FIELDS["task"]]
    new = [task for task in TASKS if task not in known]
    if model is TaskSpec:
        return {task.field for task in new}
    if model is ResolvedStrategy:
        return {kind.field for kind in STRATEGIES if kind.options and kind.member not in FIRST_FIELDS["strategy"]}
    if model is Columns:
        return {column.field for column, _ in columns(new)} - {column.field for column, _ in columns(known)}
    return set()


def model_of(annotation):
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, Model) else None
    return next((found for part in get_args(annotation) if (found := model_of(part))), None)


def test_no_field_that_changes_what_is_learned_is_ever_ignored():
    """`semantics` stands in recipe.json alone: no spec sets it."""
    assert set(unmarked(ResolvedJob, FIRST_FIELDS)) == {"semantics"}, "mark new fields: EXECUTION, or Since"
    assert list(unmarked(Job, {"options": {"other": {}}})) == ["stages"]
