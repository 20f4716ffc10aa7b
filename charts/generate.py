"""Writes what the chart has from elsewhere: `make chart`.

values.yaml is written by hand. Its comments become the descriptions of values.schema.json and of README.md; the CRD,
its warnings and the operator's rules are copied from where they belong.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
CHART = REPOSITORY / "charts" / "unfreeze"
DEPLOY = REPOSITORY / "operator" / "deploy" / "base"
HINT = "@schema "
_COPIED = "# Copied from operator/deploy/base/{} by `make chart`: edit it there.\n"
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}

Json = dict[str, Any]


class ValuesError(Exception):
    """values.yaml cannot be explained; the message names the value."""


@dataclass(frozen=True)
class Value:
    """One value as values.yaml has it."""

    path: tuple[str, ...]
    default: Any
    description: str
    hint: Json
    """What @schema adds."""
    closed: bool
    """Whether its keys are values themselves, so that no others are known."""

    @property
    def name(self) -> str:
        """The path as `helm --set` has it."""
        return ".".join(self.path)


def values(text: str) -> list[Value]:
    """Return every value in the order of the file, groups before what is in them.

    Raises
    ------
    ValuesError
        A value has no comment.
    """
    root = yaml.compose(text, yaml.SafeLoader)
    return list(_walk(root, text.splitlines(), ())) if root is not None else []


def _walk(node: yaml.Node, lines: list[str], path: tuple[str, ...]) -> Iterator[Value]:
    for key, inner in node.value:
        description, hint = _comment(lines, key.start_mark.line)
        own = (*path, key.value)
        # A mapping over several lines is a group of values; one in braces is a value.
        group = isinstance(inner, yaml.MappingNode) and not inner.flow_style and "additionalProperties" not in hint
        if not description and not group:
            raise ValuesError(f"{'.'.join(own)} has no comment in values.yaml")
        default = yaml.load(yaml.serialize(inner), yaml.SafeLoader)
        yield Value(own, default, description, hint, group)
        if group:
            yield from _walk(inner, lines, own)


def _comment(lines: list[str], line: int) -> tuple[str, Json]:
    """Return the text and the hint that stand above a line."""
    above = line
    while above > 0 and lines[above - 1].lstrip().startswith("#"):
        above -= 1
    texts = [text.lstrip().removeprefix("#").strip() for text in lines[above:line]]
    hint: Json = {}
    for text in texts:
        if text.startswith(HINT):
            hint |= yaml.safe_load(text.removeprefix(HINT))
    return " ".join(text for text in texts if not text.startswith(HINT)), hint


def schema(known: list[Value]) -> Json:
    """Return the JSON Schema of the values: closed, so that a typo is an error."""
    # Subcharts get `global` from their parents.
    root: Json = {"type": "object", "additionalProperties": False, "properties": {"global": {"type": "object"}}}
    for value in known:
        place = root
        for key in value.path[:-1]:
            place = place["properties"][key]
        place["properties"][value.path[-1]] = _schema_of(value)
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of Unfreeze's chart", **root}


def _schema_of(value: Value) -> Json:
    out: Json = {} if value.default is None else {"type": TYPES[type(value.default)]}
    if value.description:
        out["description"] = value.description
    if value.closed:
        return out | {"additionalProperties": False, "properties": {}}
    return out | {"default": value.default} | value.hint


def readme(known: list[Value]) -> str:
    """Return the README with the table of values put in."""
    rows = ["| Value | Default | |", "|---|---|---|"]
    for value in known:
        if not value.closed:
            description = value.description.replace("|", "\\|")
            rows.append(f"| `{value.name}` | `{json.dumps(value.default)}` | {description} |")
    template = (REPOSITORY / "charts" / "README.md.in").read_text(encoding="utf-8")
    return template.replace("@VALUES@", "\n".join(rows))


def outputs() -> dict[Path, str]:
    """Return every generated file with its text."""
    known = values((CHART / "values.yaml").read_text(encoding="utf-8"))
    crds = REPOSITORY / "crds"
    return {
        CHART / "files" / "crd.yaml": (crds / "unfreeze.dev_finetunejobs.yaml").read_text(encoding="utf-8"),
        CHART / "files" / "warnings.yaml": (crds / "unfreeze.dev_finetunejobs.warnings.yaml").read_text(
            encoding="utf-8"
        ),
        CHART / "files" / "clusterrole.yaml": _cluster_role(),
        CHART / "files" / "admission.yaml": _COPIED.format("admission.yaml")
        + (DEPLOY / "admission.yaml").read_text(encoding="utf-8"),
        CHART / "values.schema.json": json.dumps(schema(known), indent=2) + "\n",
        CHART / "README.md": readme(known),
    }


def _cluster_role() -> str:
    """Return the document of rbac.yaml that has the operator's rules, with its comments."""
    text = (DEPLOY / "rbac.yaml").read_text(encoding="utf-8")
    (role,) = (part for part in text.split("\n---\n") if "\nkind: ClusterRole\n" in f"\n{part}")
    return _COPIED.format("rbac.yaml") + role + "\n"


def main() -> int:
    """Write the files with --write, else say which are not up to date."""
    stale = {path: text for path, text in outputs().items() if not path.exists() or path.read_text() != text}
    if sys.argv[1:] == ["--write"]:
        for path, text in stale.items():
            path.write_text(text, encoding="utf-8")
        return 0
    for path in stale:
        print(f"{path.relative_to(REPOSITORY)} is not up to date: run `make chart`", file=sys.stderr)
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
