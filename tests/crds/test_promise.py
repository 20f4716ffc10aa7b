"""What docs/api-versions.md promises of the CRD: what a release had is still there, and means the same."""

import pytest

from tests.crds.corpus import released
from unfreeze_api.generate.crd import definition

RELEASES = ("0.1.0",)
LOOSER = {"minimum": -1, "minLength": -1, "minItems": -1, "minProperties": -1}
LOOSER |= {"maximum": 1, "maxLength": 1, "maxItems": 1, "maxProperties": 1}
"""Bounds, and the direction in which they may move."""
SAME = (
    "type",
    "pattern",
    "format",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
)


RESOLVED = {".spec.training.metric"}
"""Fields whose default the server stored once, and which resolve() fills in today: with the same value for what was there."""


def root(crd):
    (version,) = crd["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def broken(old, new, path):
    """Yield what somebody who relied on the old schema misses in the new one."""
    if new is None:
        yield f"{path} is gone"
        return
    yield from (f"{path}: {key} was {old.get(key)}, is {new.get(key)}" for key in SAME if old.get(key) != new.get(key))
    if old.get("default") != new.get("default") and not (path in RESOLVED and "default" not in new):
        yield f"{path}: default was {old.get('default')}, is {new.get('default')}"
    if missing := set(old.get("enum", ())) - set(new.get("enum", old.get("enum", ()))):
        yield f"{path}: values {sorted(missing)} are gone"
    if "enum" in new and "enum" not in old:
        yield f"{path}: only some values are taken"
    for bound, direction in LOOSER.items():
        if bound in new and (bound not in old or (new[bound] - old[bound]) * direction < 0):
            yield f"{path}: {bound} was {old.get(bound)}, is {new[bound]}"
    yield from (f"{path}.{name} is required" for name in set(new.get("required", ())) - set(old.get("required", ())))
    for name, part in old.get("properties", {}).items():
        yield from broken(part, new.get("properties", {}).get(name), f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in old:
            yield from broken(old[key], new.get(key), f"{path}[]")


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_nothing_of_a_release_is_gone_or_means_something_else(release):
    assert list(broken(root(released(release)), root(definition()), "")) == []


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_the_kind_keeps_its_names_and_columns(release):
    old, new = released(release)["spec"], definition()["spec"]
    assert (old["group"], old["scope"]) == (new["group"], new["scope"])
    assert {**old["names"], **new["names"]} == new["names"]
    columns = [column["name"] for column in old["versions"][0]["additionalPrinterColumns"]]
    today = [column["name"] for column in new["versions"][0]["additionalPrinterColumns"]]
    assert [name for name in today if name in columns] == columns


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"properties": {"a": {}}}, {"properties": {}}),
        ({"type": "integer"}, {"type": "string"}),
        ({"default": 1}, {"default": 2}),
        ({"default": 1}, {}),
        ({"enum": ["A", "B"]}, {"enum": ["A"]}),
        ({"type": "string"}, {"type": "string", "enum": ["A"]}),
        ({"maximum": 5}, {"maximum": 4}),
        ({}, {"minLength": 1}),
        ({"properties": {"a": {}}}, {"properties": {"a": {}}, "required": ["a"]}),
        ({"items": {"maximum": 5}}, {"items": {"maximum": 4}}),
    ],
)
def test_what_is_missed_is_found(old, new):
    assert len(list(broken(old, new, ""))) == 1
    assert list(broken(old, old, "")) == []
