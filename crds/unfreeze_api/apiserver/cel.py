"""Evaluates the CEL rules of the schema (`x-kubernetes-validations`) as the API server does.

Numbers are typed by the schema, not by how they are written: 3 is a double where the schema says number. Lists that
are sets or maps are compared without regard to order.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any

from cel_expr_python import cel

from unfreeze_api.apiserver.errors import Cause, shown
from unfreeze_api.apiserver.structural import Schema
from unfreeze_api.grammar.model import ONCE
from unfreeze_api.grammar.quantities import quantity

_ABSENT = object()
_REASON = "FieldValueInvalid"
"""What the API server says of a rule that names no reason."""


def evaluate(value: Any, old: Any, schema: Schema) -> Iterator[Cause]:
    """Yield the rules that do not hold.

    Parameters
    ----------
    value
        An object with defaults that the schema's types allow.
    old
        The stored object that it replaces; None when it is new: rules about `oldSelf` are left out then.
    schema
        The schema of both.
    """
    yield from _walk(value, _ABSENT if old is None else old, schema, "", unchanged=False)


def _walk(value: Any, old: Any, schema: Schema, path: str, *, unchanged: bool) -> Iterator[Cause]:
    # What was stored before a rule existed must stay changeable elsewhere: the API server forgives unchanged values.
    unchanged = unchanged or (old is not _ABSENT and value == old)
    rules = schema.get("x-kubernetes-validations", ())
    seen = _seen(_typed(value, schema), None if old is _ABSENT else _typed(old, schema)) if rules else None
    for rule in rules:
        text = rule["rule"].removeprefix(ONCE)
        once, about_update = text != rule["rule"], "oldSelf" in text
        if (once and old is not _ABSENT) or (about_update and old is _ABSENT) or (unchanged and not about_update):
            continue
        if not _holds(text, seen):
            shown_value = "" if schema.get("type") in ("object", "array") else f": {shown(value)}"
            yield Cause(path + rule.get("fieldPath", ""), f"Invalid value{shown_value}: {rule['message']}", _REASON)
    if isinstance(value, dict):
        for key, item in value.items():
            if (inner := schema.get("properties", {}).get(key)) is not None:
                where = f"{path}.{key}".lstrip(".")
            elif (inner := schema.get("additionalProperties")) is not None:
                where = f"{path}[{key}]"
            else:
                continue
            before = old.get(key, _ABSENT) if isinstance(old, dict) else _ABSENT
            yield from _walk(item, before, inner, where, unchanged=unchanged)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, _ABSENT, schema.get("items", {}), f"{path}[{index}]", unchanged=unchanged)


def _seen(value: Any, old: Any) -> cel.Activation:
    """Return what rules see, for all rules about a value: to make it takes longer than most rules do."""
    return _environment().Activation(data={"self": value, "oldSelf": old})


def _holds(rule: str, seen: cel.Activation) -> bool:
    result = _compiled(rule).eval(activation=seen)
    if result.type() == cel.Type.ERROR:
        raise ValueError(f"{result.value()} evaluating rule: {rule}")
    return result.value() is True


@cache
def _compiled(rule: str) -> cel.Expression:
    return _environment().compile(rule)


@cache
def _environment() -> cel.Env:
    text, truth = cel.Type.STRING, cel.Type.BOOL
    # Kubernetes' own functions for quantities, as far as the rules use them; a quantity is a fraction as text.
    functions = [
        cel.FunctionDecl(
            "isQuantity", [cel.Overload("is_quantity", truth, [text], impl=lambda text: quantity(text) is not None)]
        ),
        cel.FunctionDecl("quantity", [cel.Overload("quantity", text, [text], impl=lambda text: str(quantity(text)))]),
        cel.FunctionDecl(
            "compareTo", [cel.Overload("quantity_compare", cel.Type.INT, [text, text], True, _compare_quantities)]
        ),
    ]
    return cel.NewEnv(variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN}, functions=functions)


def _compare_quantities(one: str, other: str) -> int:
    left, right = Fraction(one), Fraction(other)
    return (left > right) - (left < right)


def _typed(value: Any, schema: Schema) -> Any:
    """Return a copy with the types that CEL sees."""
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        rest = schema.get("additionalProperties", {})
        return {key: _typed(item, inner.get(key, rest)) for key, item in value.items()}
    if isinstance(value, list):
        items = [_typed(item, schema.get("items", {})) for item in value]
        return sorted(items, key=shown) if schema.get("x-kubernetes-list-type") in ("set", "map") else items
    return float(value) if schema.get("type") == "number" else value
