"""The CRD: up to date, documented and bounded everywhere, and in step with the models."""

import re

import pytest
import yaml

from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_api.generate import crd
from unfreeze_api.grammar.former import is_deprecated
from unfreeze_api.grammar.model import former_names
from unfreeze_api.spec.job import FineTuneJobSpec

SCHEMA = crd.schema()

UNBOUNDED = ("spec.adapter.peft.config",)  # its schema is PEFT's; the model bounds its depth


def fields(node, path):
    for name, part in node.get("properties", {}).items():
        yield f"{path}.{name}", part, name in node.get("required", ())
        yield from fields(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from fields(node[key], path + ("[]" if key == "items" else "{}"))


SPEC_FIELDS = list(fields(SCHEMA["properties"]["spec"], "spec"))
STATUS_FIELDS = list(fields(SCHEMA["properties"]["status"], "status"))


def ids(parameters):
    return [path for path, _, _ in parameters]


def test_committed_file_is_up_to_date():
    assert crd.FILE.read_text(encoding="utf-8") == crd.to_yaml(), "run `make crds`"


@pytest.mark.slow
def test_file_is_plain_yaml():
    text = crd.to_yaml()
    assert yaml.safe_load(text) == crd.definition()
    assert "&id" not in text


@pytest.mark.parametrize(("path", "node", "_"), SPEC_FIELDS + STATUS_FIELDS, ids=ids(SPEC_FIELDS + STATUS_FIELDS))
def test_every_field_is_described(path, node, _):
    text = node["description"]
    assert text.endswith(".")
    assert "\n" not in text
    assert "  " not in text
    assert len(text.split()) >= 4, "kubectl explain should say more"
    assert text[0].isupper() or text[0].isdigit()
    assert not re.search(r"``|\*\*|::|:[a-z]+:`|Field\(|[Pp]ydantic|Literal\[|Annotated", text), "markup of the source"


@pytest.mark.parametrize(("path", "node", "needed"), SPEC_FIELDS, ids=ids(SPEC_FIELDS))
def test_every_field_is_bounded_and_has_a_default_or_a_reason(path, node, needed):
    assert bounded(node) or path in UNBOUNDED, "no bound"
    assert needed or "default" in node or node.get("type") == "object" or without_default_by_design(path, node)


def bounded(node):
    if node.get("x-kubernetes-int-or-string"):
        return "maxLength" in node
    if "additionalProperties" in node:
        return "maxProperties" in node and bounded(node["additionalProperties"])
    return {
        "string": "enum" in node or "maxLength" in node or node.get("format") == "date-time",
        "integer": "minimum" in node and "maximum" in node,
        "number": "minimum" in node and "maximum" in node,
        "array": "maxItems" in node and bounded(node.get("items", {})),
        "object": "properties" in node,
        "boolean": True,
    }[node["type"]]


def without_default_by_design(path, node):
    """A reason: it is part of a one-of, the text tells the default, or absence has a plain meaning of its own."""
    one_of = path.endswith((".lastBlocks", ".blocks", ".source", ".fraction", ".value", ".valueFrom"))
    told = is_deprecated(node) or "default" in node["description"].lower() or "without" in node["description"].lower()
    plain = path.startswith("spec.template.") or path.endswith(".activeDeadlineSeconds")
    return one_of or told or plain


@pytest.mark.parametrize("model", [FineTuneJobSpec, FineTuneJobStatus])
def test_schema_and_models_know_the_same_fields(model):
    root = SCHEMA["properties"]["spec" if model is FineTuneJobSpec else "status"]

    def same(node, kind):
        wanted = {field.alias for field in kind.model_fields.values()} | set(former_names(kind))
        assert set(node["properties"]) == wanted, kind
        assert {name for name, part in node["properties"].items() if is_deprecated(part)} == set(former_names(kind))
        assert set(node.get("required", ())) == {f.alias for f in kind.model_fields.values() if f.is_required()}
        for field in kind.model_fields.values():
            for inner in models_in(field.annotation):
                part = node["properties"][field.alias]
                same(part.get("items", part), inner)

    same(root, model)


def models_in(annotation):
    from typing import get_args

    from unfreeze_api.grammar.model import Model

    if isinstance(annotation, type) and issubclass(annotation, Model):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def test_schema_is_structural():
    def check(node, path):
        assert not {"$ref", "anyOf", "title", "nullable", "const"} & set(node), path
        assert node.get("additionalProperties") is not False, path
        assert ("type" in node) != bool(node.get("x-kubernetes-int-or-string")) or node.get(
            "x-kubernetes-preserve-unknown-fields"
        ), path
        for name, part in node.get("properties", {}).items():
            check(part, f"{path}.{name}")
        for key in ("items", "additionalProperties"):
            if key in node:
                check(node[key], f"{path}.{key}")

    check(SCHEMA, "")


def test_status_has_no_defaults_but_that_it_was_not_observed():
    assert [path for path, node, _ in STATUS_FIELDS if "default" in node] == []
    assert crd.schema()["properties"]["status"]["default"] == {"observedGeneration": -1}


def test_columns_show_fields_that_exist():
    names = {f".{path}" for path, _, _ in SPEC_FIELDS + STATUS_FIELDS} | {".metadata.creationTimestamp"}
    columns = crd.definition()["spec"]["versions"][0]["additionalPrinterColumns"]
    assert [column["jsonPath"] for column in columns if column["jsonPath"] not in names] == []
    assert [column["name"] for column in columns if "priority" not in column] == [
        "State", "Strategy", "Nodes", "Progress", "Metric", "ETA", "Age",
    ]  # fmt: skip


def test_rules_point_to_fields_that_exist():
    def check(node, path):
        for rule in node.get("x-kubernetes-validations", ()):
            place = node
            for name in rule.get("fieldPath", "").split(".")[1:]:
                place = place["properties"][name]
        for name, part in node.get("properties", {}).items():
            check(part, f"{path}.{name}")

    check(SCHEMA, "")
