"""A run belongs to a job: no release may forget that, and no field that it adds."""

import json
from typing import Annotated, Literal

import pytest
from pydantic import ValidationError

from tests.crds.corpus import FOLDER, load, parameters, patched
from tests.crds.planted import plant, resolved_cases
from unfreeze_api import fingerprint
from unfreeze_api.apiserver.validate import load_job
from unfreeze_api.contracts.first_fields import without_new_defaults
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.grammar.model import EXECUTION, HABIT, Before, FirstDefault, Model
from unfreeze_api.resolve import resolve

BASE = load("base.yaml")
GOLDEN = json.loads((FOLDER / "fingerprints.json").read_text())


def of(patch):
    return resolve("job", "default", load_job(patched(BASE, patch)).spec, rendezvous_host="host")


@pytest.mark.parametrize("case", parameters("good.yaml"))
def test_fingerprints_are_those_that_run_folders_have(case):
    """`first` is what the first release wrote of what it knew. What fails here ends every suspended job as ForeignRunFolder."""
    golden = GOLDEN[case["name"]]
    assert of(case["patch"]).fingerprints() == [golden[name] for name in ("now", "first") if name in golden]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return plant(tmp_path_factory.mktemp("planted"))


@pytest.mark.slow
def test_fields_that_are_added_move_no_fingerprint_and_no_job_file(planted):
    cases = resolved_cases(planted)
    assert cases.keys() == GOLDEN.keys()
    for case in load("good.yaml"):
        job, found = of(case["patch"]), cases[case["name"]]
        assert found["fingerprints"] == job.fingerprints()
        assert found["json"] == job.to_json(indent=1)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"planted": 0.5}, {"plantedUnset": 0}, {"plantedMember": {"ofAnotherDefault": 4}}])
def test_fields_that_are_added_and_set_do(planted, change):
    found = resolved_cases(planted, {"spec": {"training": change}})["the smallest manifest"]
    assert found["fingerprints"][0] != of({}).fingerprint()
    assert len(found["fingerprints"]) == 1  # a run of the first release cannot be this job's
    training = json.loads(found["json"])["training"]
    assert {key: training[key] for key in change} == change | {
        key: {"ofAnotherDefault": 4} for key in change if key == "plantedMember"
    }


@pytest.mark.parametrize(
    "patch",
    [
        {"training": {"gradientAccumulationSteps": 4}},
        {"training": {"gradientCheckpointing": True}},
        {"training": {"compile": True}},
        {"training": {"checkpoint": {"everySteps": 7, "keep": 9}}},
        {"distribution": {"numNodes": 2, "engine": "DeepSpeed"}},
        {"output": {"destination": "pvc://elsewhere/job", "export": ["Model"]}},
        {"tracking": {"tensorBoard": {}}},
        {"runPolicy": {"hangTimeoutSeconds": 60, "suspend": True}},
        {"template": {"image": "other"}},
        {"evidence": {"forgetting": {"budget": 0.1, "guard": "Stop"}}},
    ],
)
def test_what_changes_nothing_that_is_learned_is_no_part_of_it(patch):
    assert of({"spec": patch}).fingerprint() == of({}).fingerprint()


def test_a_guard_that_trains_is_a_part_of_it():
    anchor = {"anchor": {"source": "pvc://data/old.csv"}}
    kinds = (
        {"budget": 0.1, "guard": "Hold"},
        {"budget": 0.2, "guard": "Hold"},
        {"budget": 0.1, "guard": "Hold", **anchor},
    )
    kinds += (
        {"guard": "Replay", **anchor},
        {"guard": "Replay", "budget": 0.1, **anchor},
        {"guard": "Replay", "replay": {"share": 0.2}, **anchor},
    )
    found = [of({"spec": {"evidence": {"forgetting": kind}}}).fingerprint() for kind in kinds]
    assert len({*found, of({}).fingerprint()}) == len(found)  # what Replay loses is reported only
    assert found[3] == found[4]


@pytest.mark.parametrize("guard", ["Hold", "Replay"])
def test_the_columns_of_a_guards_rows_are_a_part_of_it(guard):
    """Other columns are other rows; where nobody names them job.json is as it was."""

    def job(**columns):
        anchor = {"source": "pvc://data/old.csv", **columns}
        return of({"spec": {"evidence": {"forgetting": {"budget": 0.1, "guard": guard, "anchor": anchor}}}})

    plain, named, others = job(), job(columns={"text": "sentence"}), job(columns={"text": "title"})
    assert len({one.fingerprint() for one in (plain, named, others)}) == 3
    assert "columns" not in json.loads(plain.to_json())["guard"]
    assert json.loads(named.to_json())["guard"]["columns"] == {"text": "sentence"}


@pytest.mark.parametrize(
    "patch",
    [
        {"strategy": {"learningRate": {"backbone": 1e-4}}},
        {"strategy": {"learningRate": {"warmupRatio": 0.06}}},
        {"model": {"dtype": "Float32"}},
        {"data": {"train": {"columns": {"label": "label"}}}},
    ],
)
def test_a_default_that_is_given_is_a_default(patch):
    assert of({"spec": patch}).fingerprint() == of({}).fingerprint()


# What later releases will do, on models of their own.


class Options(Model):
    rate: Annotated[float, FirstDefault(0.1)] = 0.2
    length: int = 8


class Job(Model):
    kind: str
    pooling: Annotated[Literal["First", "Mean"], Before("First")] = "Mean"
    options: Options = Options()
    path: Annotated[str, EXECUTION] = "/here"


def test_a_default_that_changes_moves_no_fingerprint_of_runs_that_have_the_first_one():
    first = Job(kind="a", options=Options(rate=0.1))
    assert fingerprint.given(first) == {"kind": "a"}
    assert fingerprint.given(Job(kind="a")) == {"kind": "a", "options": {"rate": 0.2}}
    assert fingerprint.given(Job(kind="a", options=Options(rate=0.1, length=9)))["options"] == {"length": 9}


class Habits(Model):
    order: Annotated[str, Before("Sorted")] = "Shuffled"


class JobWithHabits(Job):
    habits: Annotated[Habits, HABIT] = Habits()


def test_what_no_field_of_the_spec_says_is_in_the_recipe_and_in_no_fingerprint():
    earlier = JobWithHabits(kind="a", habits=Habits(order="Sorted"))
    assert fingerprint.given(earlier) == fingerprint.given(Job(kind="a"))
    assert fingerprint.recipe(earlier)["habits"] == {"order": "Sorted"}


def test_what_all_runs_had_before_there_was_a_field_is_known_to_the_first_ones():
    first = Job(kind="a", pooling="First", options=Options(rate=0.1))
    assert fingerprint.given(first) == {"kind": "a", "pooling": "First"}
    assert fingerprint.given(first, as_before=True) == {"kind": "a"}


def test_a_run_keeps_the_recipe_that_it_began_with():
    began = Job(kind="a", pooling="Mean", options=Options(rate=0.3), path="/there")
    stored = fingerprint.recipe(began)
    assert "path" not in stored
    now = fingerprint.with_recipe(Job(kind="a", path="/elsewhere"), stored)
    assert now == began.model_copy(update={"path": "/elsewhere"})


def test_what_a_recipe_lacks_was_as_it_was_before():
    now = fingerprint.with_recipe(Job(kind="a"), {"kind": "a", "options": {"rate": 0.1}})
    assert (now.pooling, now.options.rate, now.options.length) == ("First", 0.1, 8)


def test_a_recipe_of_a_later_version_is_refused():
    with pytest.raises(ValidationError, match="unheard"):
        fingerprint.with_recipe(Job(kind="a"), {"kind": "a", "unheard": 1})
    with pytest.raises(ValidationError, match="pooling"):
        fingerprint.with_recipe(Job(kind="a"), {"kind": "a", "pooling": "Max"})


def test_differences_are_told_by_path_and_value():
    one, other = of({"spec": {"training": {"epochs": 4}}}), of({"spec": {"adapter": {"type": "IA3"}}})
    told = list(fingerprint.differences(fingerprint.recipe(one), fingerprint.recipe(other)))
    assert "training.epochs is 4.0 and not 3.0" in told
    assert any(text.startswith("adapter is not set, and here {") for text in told)


def test_a_job_file_is_read_back_whole():
    job = of({"spec": {"training": {"compile": True}}})
    assert ResolvedJob.model_validate_json(job.to_json()) == job


def test_a_new_member_is_written_as_soon_as_anything_of_it_is_set():
    whole = {"training": {"epochs": 3, "new": {"a": 1, "b": 2}}, "other": {"c": 1}}
    assert without_new_defaults(whole, {}) == {"training": {"epochs": 3}}
    assert without_new_defaults(whole, {"training": {"new": {"a": 1}}})["training"]["new"] == {"a": 1, "b": 2}
