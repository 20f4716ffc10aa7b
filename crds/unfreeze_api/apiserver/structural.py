"""What the API server does with a structural schema before any rule: prune, fill in defaults, check types and bounds.

The behaviour is that of k8s.io/apiextensions-apiserver (pruning, defaulting, listtype) and k8s.io/kube-openapi
(validation) in Kubernetes 1.36, for the part of OpenAPI that our schema uses.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from unfreeze_api.apiserver.errors import (
    NO_FIELD,
    Cause,
    duplicate,
    invalid,
    not_supported,
    number,
    required,
    shown,
    too_long,
    too_many,
    wrong_type,
)

Schema = dict[str, Any]


def decoded(value: Any) -> Any:
    """Return a copy as Go decodes it from JSON: an integer that is no int64 is a float.

    Raises
    ------
    ValueError
        A number is no float64 either, or JSON has none like it (inf, nan).
    """
    if isinstance(value, dict):
        return {key: decoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"json: cannot unmarshal number {value} into Go value of type float64") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"json: unsupported value: {value}")
    return value


def unknown_fields(value: Any, schema: Schema | None, path: str = "") -> list[str]:
    """Return the paths of the fields that the schema does not have; the API server would drop them."""
    if schema is not None and schema.get("x-kubernetes-preserve-unknown-fields"):
        return []
    found: list[str] = []
    if isinstance(value, dict):
        for key, item in value.items():
            inner = _field_schema(key, schema)
            where = f"{path}.{key}" if path else key
            found += [where] if inner is None else unknown_fields(item, inner, where)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += unknown_fields(item, (schema or {}).get("items"), f"{path}[{index}]")
    return found


def without_nulls(value: Any, schema: Schema) -> Any:
    """Return a copy without the nulls of fields that have no default; those with one are filled in later."""
    if isinstance(value, dict):
        out = {}
        for key, item in value.items():
            inner = _field_schema(key, schema) or {}
            if item is not None or "default" in inner:
                out[key] = without_nulls(item, inner)
        return out
    if isinstance(value, list):
        return [without_nulls(item, schema.get("items", {})) for item in value]
    return value


def with_defaults(value: Any, schema: Schema) -> Any:
    """Return a copy with the schema's defaults filled in, also those below other defaults."""
    if isinstance(value, dict):
        out = dict(value)
        for key, inner in schema.get("properties", {}).items():
            if "default" in inner and out.get(key) is None:
                out[key] = copy.deepcopy(inner["default"])
        return {key: with_defaults(item, _field_schema(key, schema) or {}) for key, item in out.items()}
    if isinstance(value, list):
        return [with_defaults(item, schema.get("items", {})) for item in value]
    return value


def check(value: Any, schema: Schema, path: str = "") -> Iterator[Cause]:
    """Yield what is wrong by types, enums, bounds and required fields."""
    types = ["integer", "string"] if schema.get("x-kubernetes-int-or-string") else [schema.get("type", "")]
    found = _type_of(value)
    if types != [""] and found not in types and not (found == "integer" and "number" in types):
        yield wrong_type(path, ",".join(types), found)
        if value is None:
            return
    if isinstance(value, str):
        yield from _check_string(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _check_number(value, schema, path)
    elif isinstance(value, list):
        yield from _check_list(value, schema, path)
    if "enum" in schema and not (isinstance(value, str) and value in schema["enum"]):
        yield not_supported(path, value, schema["enum"])
    if isinstance(value, dict):
        yield from _check_object(value, schema, path)


def check_lists(value: Any, schema: Schema, path: str = "") -> Iterator[Cause]:
    """Yield the entries that stand twice in lists that are sets or maps."""
    if isinstance(value, dict):
        for key, item in value.items():
            inner = _field_schema(key, schema)
            if inner is not None:
                keyed = f"{path}[{key}]" if "additionalProperties" in schema else f"{path}.{key}".lstrip(".")
                yield from check_lists(item, inner, keyed)
    elif isinstance(value, list):
        names = schema.get("x-kubernetes-list-map-keys")
        if schema.get("x-kubernetes-list-type") == "set":
            yield from _duplicates(value, path)
        elif names:
            yield from _check_list_map(value, names, path)
        for index, item in enumerate(value):
            yield from check_lists(item, schema.get("items", {}), f"{path}[{index}]")


def _check_list_map(items: list[Any], names: list[str], path: str) -> Iterator[Cause]:
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            yield invalid(f"{path}[{index}]", item, "must be an object for an array of list-type map")
            return
    yield from _duplicates([{name: item[name] for name in names if name in item} for item in items], path)


def _field_schema(key: str, schema: Schema | None) -> Schema | None:
    if schema is None:
        return None
    return schema.get("properties", {}).get(key) or schema.get("additionalProperties")


def _type_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _check_string(value: str, schema: Schema, path: str) -> Iterator[Cause]:
    if len(value) > schema.get("maxLength", len(value)):
        yield too_long(path, schema["maxLength"])
    elif len(value) < schema.get("minLength", 0):
        yield invalid(path, value, f"{path} in body should be at least {schema['minLength']} chars long")
    elif "pattern" in schema and not _compiled(schema["pattern"]).search(value):
        yield invalid(path, value, f"{path} in body should match '{schema['pattern']}'")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # In Go `$` is the end of the text, in Python also the place before a last line feed.
    return re.compile(re.sub(r"\$$", r"\\Z", pattern))


_BOUNDS = (
    ("minimum", "exclusiveMinimum", -1, "greater than"),
    ("maximum", "exclusiveMaximum", 1, "less than"),
)


def _check_number(value: float, schema: Schema, path: str) -> Iterator[Cause]:
    if isinstance(value, float) and schema.get("type") == "integer":
        yield invalid(NO_FIELD, "", f"Checked value must be of type integer (default format) in {path}")
    for bound, exclusive, sign, words in _BOUNDS:
        if bound not in schema:
            continue
        limit = type(value)(schema[bound])
        if (value - limit) * sign > 0 or (schema.get(exclusive) and value == limit):
            or_equal = "" if schema.get(exclusive) else " or equal to"
            yield invalid(path, value, f"{path} in body should be {words}{or_equal} {number(limit)}")


def _check_list(value: list[Any], schema: Schema, path: str) -> Iterator[Cause]:
    for index, item in enumerate(value):
        yield from check(item, schema.get("items", {}), f"{path}[{index}]")
    if len(value) < schema.get("minItems", 0):
        yield invalid(path, len(value), f"{path} in body should have at least {schema['minItems']} items")
    if len(value) > schema.get("maxItems", len(value)):
        yield too_many(path, len(value), schema["maxItems"])


def _check_object(value: dict[str, Any], schema: Schema, path: str) -> Iterator[Cause]:
    def child(key: str) -> str:
        return f"{path}.{key}" if path else key

    if len(value) > schema.get("maxProperties", len(value)):
        yield too_many(path, len(value), schema["maxProperties"])
    for key, item in value.items():
        inner = _field_schema(key, schema)
        if inner is not None:
            yield from check(item, inner, child(key))
    for key in schema.get("required", ()):
        if key not in value:
            yield required(child(key))


def _duplicates(items: list[Any], path: str) -> Iterator[Cause]:
    seen: dict[str, int] = {}
    for index, item in enumerate(items):
        text = shown(item)
        seen[text] = seen.get(text, 0) + 1
        if seen[text] == 2:  # noqa: PLR2004 - the API server names the second occurrence only
            yield duplicate(f"{path}[{index}]", item)
