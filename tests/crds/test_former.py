"""Former names of fields: what they mean, where they are told of, and that rules and policy see them."""

import copy
import functools
import itertools
import json
from typing import Annotated, ClassVar

import pytest
from cel_expr_python import cel
from hypothesis import HealthCheck, given, settings
from pydantic import Field

from tests.crds.corpus import load, patched
from tests.crds.generate import manifests
from tests.crds.test_crd import SPEC_FIELDS
from unfreeze_api.apiserver.cel import evaluate
from unfreeze_api.apiserver.structural import with_defaults
from unfreeze_api.apiserver.validate import load_job, validate, warnings
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.generate import crd, policy
from unfreeze_api.grammar import former
from unfreeze_api.grammar.model import Formerly, Model, Rule
from unfreeze_api.resolve import resolve
from unfreeze_api.spec.job import FineTuneJobSpec

BASE = load("base.yaml")
FEW = settings(max_examples=15, suppress_health_check=list(HealthCheck), derandomize=True)
RENAMED = dict(former.renamed(FineTuneJobSpec))


def with_former_names(manifest):
    """Return a manifest with the fields that were renamed under their former names."""
    out = copy.deepcopy(manifest)
    for path, old in RENAMED.items():
        place = functools.reduce(lambda part, name: part.get(name, {}), path[:-1], out.get("spec", {}))
        if path[-1] in place and old not in place:
            place[old] = place.pop(path[-1])
    return out


def job_file(manifest):
    return resolve("job", "default", load_job(manifest).spec, rendezvous_host="host").to_json()


def test_there_are_few():
    assert RENAMED == {("output", "exports"): "export"}
    assert [path for path, node, _ in SPEC_FIELDS if former.is_deprecated(node)] == ["spec.output.export"]


@pytest.mark.slow
@FEW
@given(manifests())
def test_a_former_name_means_what_todays_does(manifest):
    old = with_former_names(manifest)
    assert validate(old) == validate(manifest) == []
    assert load_job(old).spec == load_job(manifest).spec
    assert job_file(old) == job_file(manifest)
    assert validate(manifest, old) == validate(old, manifest) == []
    assert warnings(manifest) == []
    assert len(warnings(old)) == ("export" in old["spec"]["output"])


@pytest.mark.slow
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
TODAY = OLD | {"output": {"exports": ["Adapter", "Merged"]}}


def contains(part, whole):
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(part[key], whole[key]) for key in part)
    return part == whole


def test_job_json_has_all_that_release_0_1_0_wrote_under_the_same_names():
    old, today = (job_file(patched(BASE, {"spec": spec})) for spec in (OLD, TODAY))
    assert old == today
    assert contains(load("job-0.1.0.json"), json.loads(today))
    assert ResolvedJob.model_validate(load("job-0.1.0.json")).output.export == ["Adapter", "Merged"]


@pytest.mark.parametrize("spec", [None, 5, [], {"output": None}, {"output": 5}, {"output": {"export": None}}, TODAY])
def test_what_says_nothing_is_not_told_of(spec):
    assert warnings({"spec": spec}) == []


def test_the_committed_policy_is_up_to_date():
    assert policy.FILE.read_text(encoding="utf-8") == policy.to_yaml(), "run `make crds`"


def test_no_policy_without_former_names(monkeypatch):
    monkeypatch.setattr(policy, "FineTuneJobSpec", Model)
    assert policy.manifests() == []
    assert [line for line in policy.to_yaml().splitlines() if not line.startswith("#")] == []


@pytest.mark.parametrize(
    "spec", [{}, {"output": {}}, {"output": {"exports": ["Model"]}}, {"output": {"export": ["Model"]}}]
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


# A small API of its own, with renamed fields at two depths, below what is always there and what may be missing.


class Inner(Model):
    kept: int = 1
    """A number that is always there."""
    number: int | None = None
    """A number, or none."""
    names: Annotated[list[str] | None, Formerly("name")] = Field(
        default=None, json_schema_extra={"x-kubernetes-list-type": "set"}
    )
    """Names under two names."""


class Middle(Model):
    inner: Inner = Inner()
    """An object that is always there."""
    amount: Annotated[int | None, Formerly("quantity")] = None
    """A number under two names."""


class Outer(Model):
    rules: ClassVar = (
        Rule("self == self && self == oldSelf", "outer"),
        Rule("self.first == oldSelf.first", "first", ".first"),
        Rule(
            "has(self.second) == has(oldSelf.second) && (!has(self.second) || self.second == oldSelf.second)", "second"
        ),
        Rule("!has(self.first.names) || self.first.names.all(n, n != 'no')", "names"),
        Rule("!has(self.second) || !has(self.second.amount) || self.second.amount > 2", "amount"),
        Rule(
            "!has(self.first.names) || !has(oldSelf.first.names) || self.first.names == oldSelf.first.names",
            "other names",
        ),
    )

    first: Inner = Inner()
    """An object that is always there."""
    second: Middle | None = None
    """An object that may be missing."""


SCHEMA = crd._structural_root(Outer)
INNER = [
    {},
    {"kept": 2},
    {"number": 3},
    {"names": ["no"]},
    {"name": ["no"]},
    {"names": ["a", "b"]},
    {"name": ["b", "a"], "number": 3},
    {"names": ["b", "a"], "number": 3},
]
MIDDLE = [
    None,
    {},
    {"amount": 1},
    {"quantity": 1},
    {"quantity": 3},
    {"inner": {"name": ["c"]}},
    {"inner": {"names": ["c"]}},
]
VALUES = [
    {"first": first} | ({} if second is None else {"second": second})
    for first, second in itertools.product(INNER, MIDDLE)
]


def messages(value, old=None):
    return {
        cause.message.partition(": ")[2]
        for cause in evaluate(with_defaults(value, SCHEMA), old and with_defaults(old, SCHEMA), SCHEMA)
    }


def test_rules_see_either_name():
    for value in VALUES:
        model = Outer.model_validate(value)
        wanted = {"names"} if model.first.names == ["no"] else set()
        if model.second and model.second.amount == 1:
            wanted.add("amount")
        assert messages(value) == wanted, value


def normal(part):
    """Return all of a model, with its lists as sets."""
    if isinstance(part, list):
        return set(part)
    return {name: normal(value) for name, value in part} if isinstance(part, Model) else part


def test_a_change_of_the_name_alone_is_none():
    same = 0
    for old, value in itertools.product(VALUES[::3], VALUES):
        before, after = Outer.model_validate(old), Outer.model_validate(value)
        said = messages(value, {**old, "": 0})  # never forgiven as unchanged
        wanted = {name for name in ("first", "second") if normal(getattr(before, name)) != normal(getattr(after, name))}
        assert {"first", "second"} & said == wanted, (old, value)
        assert ("outer" in said) == bool(wanted), (old, value)
        both = before.first.names and after.first.names
        assert ("other names" in said) == bool(both and set(before.first.names) != set(both)), (old, value)
        same += old != value and not wanted
    assert same > 20


@pytest.mark.slow
def test_what_cannot_be_changed_is_said_at_the_value_itself():
    rules = [rule for name in ("first", "second") for rule in former.fixed(Outer, [name], f"{name} is fixed")]
    placed = crd._with_rules(crd._structural_root(Outer), rules)
    assert (("first", "kept"), former.UNCHANGED) in [(path, rule.rule) for path, rule in rules]
    for old, value in itertools.product(VALUES[::3], VALUES):
        both = (with_defaults(given, SCHEMA) for given in (value, {**old, "": 0}))
        said = {cause.message.split(": ")[-1] for cause in evaluate(*both, placed)} & {
            "first is fixed",
            "second is fixed",
        }
        before, after = Outer.model_validate(old), Outer.model_validate(value)
        wanted = {name for name in ("first", "second") if normal(getattr(before, name)) != normal(getattr(after, name))}
        assert said == {f"{name} is fixed" for name in wanted}, (old, value)


def test_both_names_at_once_are_refused():
    assert messages({"first": {"names": ["a"], "name": ["a"]}}) == {
        "names and name, its former name, are both set: remove name"
    }
    assert messages({"second": {"amount": 3, "quantity": 3}}) == {
        "amount and quantity, its former name, are both set: remove quantity"
    }


def test_models_take_either_name_and_write_todays():
    for value in ({"quantity": 4}, {"quantity": 4, "amount": None}, {"quantity": None, "amount": 4}):
        assert Middle.model_validate(value).model_dump(exclude_defaults=True) == {"amount": 4}
    assert Middle(amount=4).amount == 4


def test_what_is_told_of_lies_below_other_objects_too():
    spec = {"second": {"inner": {"name": ["a"]}, "quantity": 3}, "first": {"names": ["a"]}}
    said = [
        "spec.second.quantity is deprecated: write amount, the former name is gone in the next minor release",
        "spec.second.inner.name is deprecated: write names, the former name is gone in the next minor release",
    ]
    assert former.warnings(spec, Outer) == said
    assert [text for expression, text in former.checks(Outer) if evaluated(expression, object={"spec": spec})] == said


def renamed(annotation, default):
    class Renamed(Model):
        field: Annotated[annotation, Formerly("old")] = default

    return Renamed


@pytest.mark.parametrize(
    ("annotation", "default"),
    [(int, 3), (int, ...), (Inner, Inner()), (Inner | None, None)],
    ids=["default", "required", "object", "object or none"],
)
def test_what_the_api_server_fills_in_cannot_have_a_former_name(annotation, default):
    with pytest.raises(TypeError, match=r"Renamed\.field cannot have a former name: only an optional value"):
        crd._structural_root(renamed(annotation, default))
