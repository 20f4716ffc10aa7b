"""What is wrong with a manifest, in the words of the API server: its field errors and their texts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

NO_FIELD = "<nil>"
"""What the API server writes where a cause is about no field in particular."""


@dataclass(frozen=True, slots=True, order=True)
class Cause:
    """One thing that is wrong, as an entry of `details.causes` of the API server's answer.

    Parameters
    ----------
    field
        Path of the field, like `spec.training.epochs`; empty or NO_FIELD when it is about the whole manifest.
    message
        What is wrong, for people.
    reason
        The same in one word, like FieldValueInvalid.
    """

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    def __str__(self) -> str:
        return self.message if self.field in ("", NO_FIELD) else f"{self.field}: {self.message}"


BLOCKING = frozenset(
    {
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    }
)
"""Reasons after which the API server does not evaluate the rules of the schema."""

RULES_SKIPPED = Cause(
    NO_FIELD,
    "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing"
    " errors to complete validation",
)


def invalid(field: str, value: Any, detail: str) -> Cause:
    """Tell of a value that is not allowed."""
    return Cause(field, f"Invalid value: {shown(value)}: {detail}")


def wrong_type(field: str, wanted: str, found: str) -> Cause:
    """Tell of a value of another type than the schema's."""
    text = f'Invalid value: "{found}": {field} in body must be of type {wanted}: "{found}"'
    return Cause(field, text, "FieldValueTypeInvalid")


def required(field: str, detail: str = "") -> Cause:
    """Tell of a field that is missing."""
    return Cause(field, "Required value" + (f": {detail}" if detail else ""), "FieldValueRequired")


def not_supported(field: str, value: Any, supported: list[str]) -> Cause:
    """Tell of a value that is not among those of an enum."""
    names = ", ".join(shown(name) for name in supported)
    return Cause(field, f"Unsupported value: {shown(value)}: supported values: {names}", "FieldValueNotSupported")


def too_long(field: str, limit: int) -> Cause:
    """Tell of a text with more characters than allowed."""
    unit = "byte" if limit == 1 else "bytes"  # characters are counted: the word is the API server's
    return Cause(field, f"Too long: may not be more than {limit} {unit}", "FieldValueTooLong")


def too_many(field: str, actual: int, limit: int) -> Cause:
    """Tell of a list or object with more entries than allowed."""
    unit = "item" if limit == 1 else "items"
    return Cause(field, f"Too many: {actual}: must have at most {limit} {unit}", "FieldValueTooMany")


def duplicate(field: str, value: Any) -> Cause:
    """Tell of an entry that stands twice."""
    return Cause(field, f"Duplicate value: {shown(value)}", "FieldValueDuplicate")


def shown(value: Any) -> str:
    """Return a value as Go prints it: numbers by %v, texts in quotes, everything else as JSON."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, bool | str | int):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def number(value: float) -> str:
    """Return a number as Go's %v prints it: a float has an exponent below 1e-4 and from 1e6 on."""
    if isinstance(value, int):
        return str(value)
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    power = len(digits) + int(exponent) - 1
    if -4 <= power < 6:  # noqa: PLR2004
        return f"{value:.15g}" if value.is_integer() else repr(value)
    tail = "".join(str(digit) for digit in digits[1:])
    return f"{'-' * sign}{digits[0]}{'.' + tail if tail else ''}e{power:+03d}"
