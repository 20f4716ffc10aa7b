"""Reads manifests from YAML or JSON with the meaning that kubectl gives them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

_SHOWN = 60
"""Longest value that a message repeats."""


@dataclass(frozen=True, slots=True)
class Document:
    """One manifest of a file, and the line that it starts on."""

    line: int
    manifest: dict[str, Any]


class ManifestError(ValueError):
    """A file that holds no manifests; the message names the line."""


class Loader(yaml.SafeLoader):
    """YAML as kubectl reads it: 1e-3 is a number, dates stay texts, and no key may stand twice."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse keys that stand twice before merge keys are put in place."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    "while reading an object", node.start_mark, "a key must be a text", key.start_mark
                )
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    "while reading an object", node.start_mark, f'"{key.value}" stands here twice', key.start_mark
                )
            seen.add(key.value)
        super().flatten_mapping(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node; what is no value of JSON is named with its place."""
        try:
            value = super().construct_object(node, deep=deep)
            if isinstance(value, str):
                value.encode()  # half of a character has none
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            text = f'"{node.value}" ' if isinstance(node, yaml.ScalarNode) and len(node.value) < _SHOWN else "this "
            kind = node.tag.rpartition(":")[2]
            why = f": {error}" if isinstance(error, OverflowError) else ""
            problem = f"{text}is not to be read as {kind}{why}".encode(errors="replace").decode()
            raise yaml.constructor.ConstructorError(
                "while reading a value", node.start_mark, problem, node.start_mark
            ) from error
        return value

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """Return a whole number of any base."""
        text = node.value.replace("_", "")
        digits = text.lstrip("+-").lower()
        # Go reads a leading 0 as octal, as C does.
        octal = len(digits) > 1 and digits[0] == "0" and digits.isdecimal()
        value = int(digits, 8) if octal else int(digits, 0)
        return -value if text.startswith("-") else value

    def construct_decimal(self, node: yaml.ScalarNode) -> float:
        """Return a number; 3.0 is the whole number 3, as in JSON that was written by Go."""
        value = float(node.value.replace("_", ""))
        if math.isinf(value):
            raise OverflowError("JSON has no number of that size")
        return int(value) if value.is_integer() and abs(value) < 1e21 else value  # noqa: PLR2004


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":bool", ":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^[yYnN]$"), list("yYnN"))
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(0[bB][01_]+|0[xX][0-9a-fA-F_]+|0[oO]?[0-7_]*|[1-9][0-9_]*)$"),
    list("-+0123456789"),
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
Loader.bool_values = {**yaml.SafeLoader.bool_values, "y": True, "n": False}
Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_integer)
Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_decimal)


def read(text: str) -> Iterator[Document]:
    """Yield the manifests of a file, those in a List too; empty documents are left out.

    Raises
    ------
    ManifestError
        When the text is not YAML, or a document is not an object.
    """
    loader = None
    try:
        loader = Loader(text)
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            value = loader.construct_document(node)
            line = node.start_mark.line + 1
            if value is None:
                continue
            if not isinstance(value, dict):
                raise ManifestError(f"line {line}: a manifest is an object with apiVersion, kind, metadata and spec")
            if _holds_itself(value, set(), set()):
                raise ManifestError(f"line {line}: an alias (*) stands within what it names")
            items = value.get("items") if value.get("kind") == "List" else None
            for item in items if isinstance(items, list) else [value]:
                yield Document(line, item if isinstance(item, dict) else {})
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ManifestError(f"{where}{error.problem or 'not YAML'}") from None
    except yaml.YAMLError as error:
        raise ManifestError(f"not YAML: {error}") from None
    except RecursionError:
        raise ManifestError("nested deeper than any manifest is") from None
    finally:
        if loader is not None:
            loader.dispose()


def _holds_itself(value: object, around: set[int], known: set[int]) -> bool:
    """Return whether an object or a list stands in itself, as YAML's aliases can have it and JSON cannot."""
    if not isinstance(value, dict | list) or id(value) in known:
        return False
    if id(value) in around:
        return True
    around.add(id(value))
    found = any(_holds_itself(part, around, known) for part in (value.values() if isinstance(value, dict) else value))
    around.discard(id(value))
    known.add(id(value))
    return found
