"""docs/api.md: every field of a FineTuneJob with its type, bounds, default, meaning and rules, from the CRD.

`python -m unfreeze_api.generate.reference` prints it, `python -m unfreeze_api.generate.reference --write` writes the committed file.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unfreeze_api.generate.crd import definition
from unfreeze_api.grammar import former

FILE = Path(__file__).parents[3] / "docs" / "api.md"
"""The committed text; a test proves that it is up to date."""

Node = dict[str, Any]

_HEAD = """\
# FineTuneJob, field by field

<!-- Generated from the CRD by `make crds`: edit the models in crds/unfreeze_api, not this file. -->

`apiVersion: {group}/{version}`, `kind: {kind}`, short name `{short}`. A field without a default may be left out unless it is
required; its text says what happens then. The rules are evaluated by the API server and, in the same words, by `unfreeze
validate`.
"""


def to_markdown() -> str:
    """Return the reference as Markdown."""
    crd = definition()["spec"]
    version = crd["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    names = crd["names"]
    head = _HEAD.format(group=crd["group"], version=version["name"], kind=names["kind"], short=names["shortNames"][0])
    parts = [head, *_section("metadata.name", schema["properties"]["metadata"]["properties"]["name"])]
    for name in ("spec", "status"):
        parts += _section(name, schema["properties"][name])
    return "\n".join([*parts, *_columns(version["additionalPrinterColumns"])])


def _section(path: str, node: Node) -> Iterator[str]:
    """Yield the text about an object, then about each object in it."""
    yield f"## {path}\n\n{_sentence(node.get('description', ''))}\n"
    fields = node.get("properties", {})
    if fields:
        yield "| Field | Type | Default | Meaning |\n|---|---|---|---|"
        for name, field in fields.items():
            required = name in node.get("required", ())
            default = "required" if required else f"`{_compact(field['default'])}`" if "default" in field else ""
            yield f"| `{name}` | {_type(f'{path}.{name}', field)} | {default} | {_cell(field['description'])} |"
        yield ""
    if rules := list(_rules(node)):
        yield "Rules:\n\n" + "\n".join(f"- {rule}" for rule in rules) + "\n"
    for name, field in fields.items():
        inner = _inner(field)
        if inner.get("properties"):
            yield from _section(f"{path}.{name}", inner | {"description": field["description"]})


def _inner(field: Node) -> Node:
    """Return the object that a field holds, in a list or a map if need be."""
    for key in ("items", "additionalProperties"):
        if key in field:
            return _inner(field[key])
    return field


def _type(path: str, field: Node) -> str:
    for key, kind in (("items", "list of"), ("additionalProperties", "map to")):
        if key in field:
            return f"{kind} {_type(path, field[key])}"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("properties"):
        return f"[object](#{slug(path)})"
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string" + _bounds(field)
    kind = "time" if field.get("format") == "date-time" else field.get("type", "any")
    return kind + _bounds(field)


def _bounds(field: Node) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is None and high is None:
        return ""
    above = f"above {low}" if field.get("exclusiveMinimum") else f"at least {low}"
    below = f"below {high}" if field.get("exclusiveMaximum") else f"at most {high}"
    return ", " + ", ".join(text for text, bound in ((above, low), (below, high)) if bound is not None)


def _rules(node: Node) -> Iterator[str]:
    """Yield what is said of an object and its values; that they cannot be changed, which each says for itself, once."""
    values = [field for field in node.get("properties", {}).values() if not field.get("properties")]
    fixed = (
        rule
        for field in values
        for rule in field.get("x-kubernetes-validations", ())
        if rule["rule"] == former.UNCHANGED
    )
    own = (*node.get("x-kubernetes-validations", ()), *fixed)
    yield from dict.fromkeys(_cell(rule["message"]) for rule in own)
    for name, field in node.get("properties", {}).items():
        if not field.get("properties"):
            for rule in (
                *field.get("x-kubernetes-validations", ()),
                *_inner(field).get("x-kubernetes-validations", ()),
            ):
                if rule["rule"] != former.UNCHANGED:
                    yield f"`{name}`: {_cell(rule['message'])}"


def _columns(columns: list[Node]) -> Iterator[str]:
    yield "## kubectl get\n\n| Column | From | Meaning |\n|---|---|---|"
    for column in columns:
        wide = " (with `-o wide`)" if column.get("priority") else ""
        yield f"| {column['name']} | `{column['jsonPath']}` | {_cell(column['description'])}{wide} |"
    yield ""


def _sentence(text: str) -> str:
    return text.replace("<", "&lt;")


def _cell(text: str) -> str:
    return _sentence(text).replace("|", "\\|")


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        FILE.write_text(to_markdown(), encoding="utf-8")
    else:
        sys.stdout.write(to_markdown())
