"""The CustomResourceDefinition of FineTuneJob, generated from the pydantic models.

`python -m unfreeze_api.generate.crd` prints it, `python -m unfreeze_api.generate.crd --write` writes the committed file.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from unfreeze_api.contracts.names import GROUP, KIND, PLURAL, VERSION
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_api.generate.docstrings import field_texts
from unfreeze_api.grammar import former
from unfreeze_api.grammar.model import Model, Rule, former_names, once
from unfreeze_api.spec.job import FIXED, FineTuneJobSpec, about_fixed, fixed_rules

FILE = Path(__file__).parents[2] / "unfreeze.dev_finetunejobs.yaml"
"""The committed text of the CRD; a test proves that it is up to date."""

NAME_RULE = Rule(
    "self.matches('^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$')",
    "the name must start with a letter, contain only lower-case letters, digits and '-', end with a letter or digit, and"
    " have at most 52 characters: a Service and the host names of the pods are made from it",
)

# Wire names of JSON Schema that stand in a CRD as they are; everything else is left out or changed below.
_KEPT = (
    "type",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "format",
)

# Name, JSON path, description, type, priority: columns of priority 1 appear with `-o wide`.
_COLUMNS = (
    ("State", ".status.phase", "The state in one word.", "string", 0),
    ("Strategy", ".spec.strategy.type", "How much of the model may change.", "string", 0),
    ("Nodes", ".spec.distribution.numNodes", "Pods that train together.", "integer", 0),
    ("Progress", ".status.summary.progress", "Share of the training that is done.", "string", 0),
    (
        "Metric",
        ".status.summary.metric",
        "Newest validation metric; in the end the test metric, if there is test data.",
        "string",
        0,
    ),
    ("ETA", ".status.summary.eta", "Time that is left.", "string", 0),
    ("Age", ".metadata.creationTimestamp", "Time since the job was created.", "date", 0),
    ("Model", ".spec.model.source", "The pretrained model.", "string", 1),
    ("Engine", ".spec.distribution.engine", "What keeps the workers in step.", "string", 1),
    ("Checkpoint", ".status.summary.checkpoint", "Step of the newest checkpoint.", "string", 1),
    ("Cost", ".status.cost.text", "Accelerator hours or money, so far and in the end.", "string", 1),
    ("Restarts", ".status.restarts.pods", "Pods that were replaced.", "integer", 1),
)


class _Generator(GenerateJsonSchema):
    """JSON Schema with each model's CEL rules beside it, and defaults that name only what is not a default itself."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        out = super().model_schema(schema)
        model: type[Model] = schema["cls"]
        for name, text in field_texts(model).items():
            out["properties"][name].setdefault("description", text)
        if rules := [rule.to_schema() for rule in former.rules(model)]:
            out["x-kubernetes-validations"] = rules
        if names := former_names(model):
            out["properties"] = dict(_with_former_names(out["properties"], names))
        return out

    def sort(self, value: Any, parent_key: str | None = None) -> Any:  # noqa: ARG002 - pydantic's signature
        return value  # the models' own order reads better than the alphabet's

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, BaseModel):
            return dft.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return super().encode_default(dft)


def _with_former_names(properties: dict[str, Any], names: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """Yield the properties of a model, each followed by itself under its former name."""
    for name, node in properties.items():
        yield name, node
        for old in (old for old, new in names.items() if new == name):
            yield old, node | {"description": former.description(name)}


class _Dumper(yaml.SafeDumper):
    """YAML without anchors: the text of a model that is used twice stands there twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def definition() -> dict[str, Any]:
    """Return the CustomResourceDefinition as a manifest."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["ftj"],
                "categories": ["all"],  # a job belongs beside the pods and Services that `kubectl get all` shows
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema()},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "jsonPath": path, "description": description, "type": kind}
                        | ({"priority": priority} if priority else {})
                        for name, path, description, kind, priority in _COLUMNS
                    ],
                }
            ],
        },
    }


def schema() -> dict[str, Any]:
    """Return the structural OpenAPI v3 schema of a FineTuneJob, for the caller to change."""
    return copy.deepcopy(_schema())


@cache
def _schema() -> dict[str, Any]:
    name = {
        "type": "string",
        "description": "Name of the job; its pods and its Service are named after it.",
        "maxLength": 253,  # the API server's own limit: only the rule's cost depends on it
        "x-kubernetes-validations": [NAME_RULE.to_schema()],
    }
    return {
        "description": "A FineTuneJob adapts a pretrained model to a task: which model, which data, and how much of the"
        " model may change.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always {GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"Always {KIND}."},
            "metadata": {"type": "object", "properties": {"name": name}},
            "spec": _with_rules(_judged_once(_structural_root(FineTuneJobSpec)), fixed_rules()),
            # Else kstatus would take a job that no operator has seen yet for one that is as it should be.
            "status": _without_defaults(_structural_root(FineTuneJobStatus)) | {"default": {"observedGeneration": -1}},
        },
    }


def _judged_once(spec: dict[str, Any]) -> dict[str, Any]:
    """Have the rules that are about nothing that could be changed evaluated of new jobs alone.

    The API server evaluates all rules about a spec again with each write of a status, of which they would be a third.
    """
    rules = [once(rule) if about_fixed(rule["rule"]) else rule for rule in spec["x-kubernetes-validations"]]
    fixed = {name: dict(spec["properties"][name]) for name in FIXED}
    for node in fixed.values():
        if own := node.get("x-kubernetes-validations"):
            node["x-kubernetes-validations"] = [once(rule) for rule in own]
    return spec | {"properties": spec["properties"] | fixed, "x-kubernetes-validations": rules}


def _with_rules(node: dict[str, Any], rules: Iterable[tuple[former.Path, Rule]]) -> dict[str, Any]:
    """Add rules to the fields at their paths."""
    for path, rule in rules:
        place = node
        for name in path:
            place = place["properties"][name]
        place["x-kubernetes-validations"] = [*place.get("x-kubernetes-validations", ()), rule.to_schema()]
    return node


def _structural_root(model: type[Model]) -> dict[str, Any]:
    document = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    return _structural(document, document.get("$defs", {}))


def _structural(node: dict[str, Any], models: dict[str, Any]) -> dict[str, Any]:
    """Turn JSON Schema as pydantic writes it into what the API server accepts.

    References are put in place, `X or null` becomes X (Kubernetes drops nulls), and exclusive bounds get draft 4's
    form. What a field itself says (description, default) wins over what its type says.
    """
    node = _inlined(node, models)
    out: dict[str, Any] = {}
    if "description" in node:
        out["description"] = " ".join(node["description"].split())
    if node.get("x-kubernetes-int-or-string"):
        node.pop("type", None)
    if "const" in node:
        out["enum"] = [node["const"]]
    out |= {key: node[key] for key in _KEPT if key in node}
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in node:
            out |= {bound: node[exclusive], exclusive: True}
    if node.get("default") is not None:
        out["default"] = node["default"]
    if "properties" in node:
        out["properties"] = {key: _structural(value, models) for key, value in node["properties"].items()}
    elif isinstance(node.get("additionalProperties"), dict):
        out["additionalProperties"] = _structural(node["additionalProperties"], models)
    if "items" in node:
        out["items"] = _structural(node["items"], models)
    return out | {key: value for key, value in node.items() if key.startswith("x-kubernetes-")}


def _inlined(node: dict[str, Any], models: dict[str, Any]) -> dict[str, Any]:
    node = dict(node)
    if reference := node.pop("$ref", None):
        return _inlined(models[reference.removeprefix("#/$defs/")] | node, models)
    members = [member for member in node.pop("anyOf", ()) if member.get("type") != "null"]
    if len(members) == 1:
        return _inlined(members[0] | node, models)
    return node


def _without_defaults(node: dict[str, Any]) -> dict[str, Any]:
    """Within status is what the operator wrote, nothing else: the API server fills nothing in."""
    out = {key: value for key, value in node.items() if key != "default"}
    for key in ("items", "additionalProperties"):
        if key in out:
            out[key] = _without_defaults(out[key])
    if "properties" in out:
        out["properties"] = {key: _without_defaults(value) for key, value in out["properties"].items()}
    return out


def to_yaml() -> str:
    """Return the CustomResourceDefinition as the text of the committed file."""
    head = "# Generated from crds/unfreeze_api by `make crds`: edit the models, not this file.\n"
    return head + yaml.dump(definition(), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        FILE.write_text(to_yaml(), encoding="utf-8")
    else:
        sys.stdout.write(to_yaml())
