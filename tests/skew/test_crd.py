"""The CRD is upgraded before the operator: what the API server fills in must not reach the first build's operator."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support import first_build
from unfreeze_api.generate.crd import schema


def spec_of(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def filled_in(now: dict[str, Any], then: dict[str, Any], path: str) -> Iterator[str]:
    """Yield the fields that the API server sets in every object, and that the older schema does not have."""
    for name, node in now.get("properties", {}).items():
        if name not in then.get("properties", {}):
            yield from [f"{path}.{name}"] * ("default" in node)
        else:
            yield from filled_in(node, then["properties"][name], f"{path}.{name}")


@pytest.mark.slow
def test_fields_that_are_added_have_no_default_in_the_schema():
    """That operator refuses a spec with a field that it does not know, and gives up the job that has it."""
    first = spec_of(yaml.safe_load(first_build.text("crds/unfreeze.dev_finetunejobs.yaml")))
    found = list(filled_in(schema()["properties"]["spec"], first, "spec"))
    assert found == [], "make these optional, say their default in the description, and let resolve() fill it in"


def test_one_that_has_is_found_at_every_depth():
    then = {"properties": {"a": {"properties": {"b": {"default": 1}}}}}
    now = {
        "properties": {"a": {"properties": {"b": {"default": 2}, "c": {"default": 1}, "d": {}}}, "e": {"default": {}}}
    }
    assert list(filled_in(now, then, "spec")) == ["spec.a.c", "spec.e"]
