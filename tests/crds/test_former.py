"""Former names of fields: what they mean, where they are told of, and that rules and policy see them."""

import copy
import itertools
import json
from typing import Annotated, ClassVar

import pytest
from cel_expr_python import cel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from tests.crds.corpus import load, patched
from tests.crds.generate import manifests
from unfreeze_api import crd, former, policy, rules
from unfreeze_api.model import Formerly, Model, Rule
from unfreeze_api.resolve import ResolvedJob, resolve
from unfreeze_api.spec import FineTuneJobSpec
from unfreeze_api.structural import with_defaults
from unfreeze_api.validate import load_job, validate, warnings

BASE = load("base.yaml")
FEW = settings(max_examples=15, suppress_health_check=list(HealthCheck), derandomize=True)
RENAMED = dict(former.renamed(FineTuneJobSpec))


def with_former_names(manifest, paths=tuple(RENAMED)):
    """Return a manifest with some of its fields under their former names."""
    out = copy.deepcopy(manifest)
    for path in paths:
        place = out.get("spec")
        for name in path[:-1]:
            place = place.get(name) if isinstance(place, dict) else None
        if isinstance(place, dict) and path[-1] in place and RENAMED[path] not in place:
            place[RENAMED[path]] = place.pop(path[-1])
    return out


def job_file(manifest):
    return resolve("job", "default", load_job(manifest).spec, rendezvous_host="host").to_json()


def test_there_are_few():
    assert RENAMED == {("training", "evaluation"): "evaluate", ("output", "exports"): "export"}


@FEW
@given(manifests(), st.sets(st.sampled_from(sorted(RENAMED))))
def test_a_former_name_means_what_todays_does(manifest, paths):
    old = with_former_names(manifest, paths)
    assert validate(old) == validate(manifest) == []
    assert load_job(old).spec == load_job(manifest).spec
    assert job_file(old) == job_file(manifest)
    assert validate(manifest, old) == validate(old, manifest) == []
    assert warnings(manifest) == []
    assert len(warnings(old)) == (old["spec"]["training"].get("evaluate") not in (None, {})) + (
        "export" in old["spec"]["output"]
    )


def test_a_mistake_is_found_under_a_former_name_too():
    cases = [(case["name"], patched(BASE, case["patch"])) for case in load("bad.yaml")]
    renamed = [(name, old, whole) for name, whole in cases if (old := with_former_names(whole)) != whole]
    for name, old, whole in renamed:
        assert len(validate(old)) == len(validate(whole)), name
    assert len(renamed) >= 9


OLD = {
    "adapter": {"type": "LoRA"},
    "training": {"evaluate": {"everySteps": 50}},
    "output": {"export": ["Adapter", "Merged"]},
}


def contains(part, whole):
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(part[key], whole[key]) for key in part)
    return part == whole


def test_job_json_has_all_that_release_0_1_0_wrote_under_the_same_names():
    old = patched(BASE, {"spec": OLD})
    today = patched(
        BASE,
        {"spec": OLD | {"training": {"evaluation": {"everySteps": 50}}, "output": {"exports": ["Adapter", "Merged"]}}},
    )
    assert job_file(old) == job_file(today)
    assert contains(load("job-0.1.0.json"), json.loads(job_file(today)))
    assert ResolvedJob.model_validate(load("job-0.1.0.json")).training.evaluation.every_steps == 50


def test_each_field_under_its_former_name_is_told_of():
    assert warnings(patched(BASE, {"spec": OLD})) == [
        "spec.output.export is deprecated: write exports, the former name is gone in the next minor release",
        "spec.training.evaluate is deprecated: write evaluation, the former name is gone in the next minor release",
    ]


@pytest.mark.parametrize("spec", [None, 5, [], {"training": None, "output": 5}, {"training": {"evaluate": {}}}])
def test_what_says_nothing_is_not_told_of(spec):
    """The API server has stored evaluate: {} in every job of an earlier release."""
    assert warnings({"spec": spec}) == []


def test_the_committed_policy_is_up_to_date():
    assert policy.FILE.read_text(encoding="utf-8") == policy.to_yaml(), "run `make crds`"


def test_no_policy_without_former_names(monkeypatch):
    monkeypatch.setattr(policy, "FineTuneJobSpec", Inner)
    assert policy.manifests() == []
    assert [line for line in policy.to_yaml().splitlines() if not line.startswith("#")] == []


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"training": {}, "output": {}},
        {"training": {"evaluate": {}}},
        {"training": {"evaluation": {"everySteps": 5}}, "output": {"exports": ["Model"]}},
        {"training": {"evaluate": {"everySteps": 5}}},
        {"training": {"evaluate": {"everySteps": 5}}, "output": {"export": ["Model"]}},
    ],
)
def test_the_policy_says_what_validate_says(spec):
    found = [
        validation["message"]
        for validation in policy.manifests()[0]["spec"]["validations"]
        if not evaluated(validation["expression"], object={"spec": spec})
    ]
    assert sorted(found) == sorted(warnings({"spec": spec}))


def evaluated(expression, **variables):
    environment = cel.NewEnv(variables=dict.fromkeys(variables, cel.Type.DYN))
    return environment.compile(expression).eval(data=variables).value()


# A small API of its own, in which everything is renamed that may be.


class Inner(Model):
    number: int | None = Field(default=None, ge=0, le=9)
    """A number, or none."""
    names: list[str] | None = Field(default=None, json_schema_extra={"x-kubernetes-list-type": "set"})
    """Names, or none."""


class Middle(Model):
    kept: int = 1
    """A number that is always there."""
    amount: Annotated[int | None, Formerly("quantity")] = None
    """A number under two names."""


class Outer(Model):
    rules: ClassVar = (
        Rule("self == self && self.first == oldSelf.first", "first", ".first"),
        Rule(
            "has(self.second) == has(oldSelf.second) && (!has(self.second) || self.second == oldSelf.second)", "second"
        ),
        Rule("!has(self.first.number) || self.first.number > 2", "number"),
        Rule("!has(self.second) || !has(self.second.amount) || self.second.amount > 2", "amount"),
        Rule(
            "!has(self.first.number) || !has(oldSelf.first.number) || self.first.number == oldSelf.first.number",
            "another number",
        ),
    )

    first: Annotated[Inner, Formerly("uno")] = Inner()
    """An object under two names."""
    second: Middle | None = None
    """An object that may be missing."""


SCHEMA = crd._structural_root(Outer)
INNER = [None, {}, {"number": 1}, {"number": 3}, {"names": ["a", "b"]}, {"names": ["b", "a"], "number": 3}]
MIDDLE = [None, {}, {"kept": 2}, {"amount": 1}, {"quantity": 3}, {"quantity": 3, "kept": 2}, {"amount": 3}]
VALUES = [
    {name: value for name, value in (("first", first), ("uno", uno), ("second", second)) if value is not None}
    for first, uno, second in itertools.product(INNER, INNER, MIDDLE)
    if not (first and uno)
]


def messages(value, old=None):
    return {
        cause.message.partition(": ")[2]
        for cause in rules.evaluate(with_defaults(value, SCHEMA), old and with_defaults(old, SCHEMA), SCHEMA)
    }


def test_rules_see_either_name():
    for value in VALUES:
        model = Outer.model_validate(value)
        wanted = {"number"} if model.first.number is not None and model.first.number <= 2 else set()
        if model.second and model.second.amount is not None and model.second.amount <= 2:
            wanted.add("amount")
        assert messages(value) == wanted, value


def normal(part):
    if isinstance(part, Inner):
        return part.number, part.names and sorted(part.names)
    return part


def test_a_change_of_the_name_alone_is_none():
    same = 0
    for old, value in itertools.product(VALUES[::3], VALUES[::2]):
        before, after = Outer.model_validate(old), Outer.model_validate(value)
        said = messages(value, {**old, "": 0})  # never forgiven as unchanged
        assert ("first" in said) == (normal(before.first) != normal(after.first)), (old, value)
        assert ("second" in said) == (before.second != after.second), (old, value)
        numbers = {before.first.number, after.first.number} - {None}
        assert ("another number" in said) == (len(numbers) == 2), (old, value)
        same += old != value and not {"first", "second"} & said
    assert same > 20


def test_a_rule_cannot_take_a_renamed_object_as_a_whole():
    assert former.both_names("has(self.first) && self.first.number > 2", Outer).startswith(
        "(true) && (has(self.first.number)"
    )
    with pytest.raises(TypeError, match="cannot take first as a whole, which has two names: size"):
        former.both_names("size(self.first) > 2", Outer)


def test_both_names_at_once_are_refused():
    assert messages({"first": {"number": 3}, "uno": {"number": 3}}) == {
        "first and uno, its former name, are both set: remove uno"
    }
    assert messages({"second": {"amount": 3, "quantity": 3}}) == {
        "amount and quantity, its former name, are both set: remove quantity"
    }


def test_models_take_either_name_and_write_todays():
    old = Outer.model_validate({"uno": {"number": 3}, "first": {}, "second": {"quantity": 4}})
    assert old.model_dump(exclude_none=True) == {"first": {"number": 3}, "second": {"kept": 1, "amount": 4}}
    assert Outer(first=Inner(number=3)).first.number == 3


def test_what_is_told_of_lies_in_lists_too():
    class Many(Model):
        several: list[Middle] | None = None
        """Objects."""

    assert former.warnings({"several": [{}, {"quantity": 1}]}, Many) == [
        "spec.several[1].quantity is deprecated: write amount, the former name is gone in the next minor release"
    ]


def filled(annotation, default):
    class Filled(Model):
        field: annotation = default

    return Filled


@pytest.mark.parametrize(
    ("annotation", "default"),
    [(int, 3), (int, ...), (Middle, Middle()), (Inner, Inner(number=1)), (Inner | None, None)],
    ids=["value", "required", "default within", "default that says something", "object or none"],
)
def test_what_the_api_server_fills_in_cannot_have_a_former_name(annotation, default):
    with pytest.raises(TypeError, match=r"Filled\.field cannot have a former name: the API server fills it in"):
        list(former.rules(filled(Annotated[annotation, Formerly("old")], default)))
