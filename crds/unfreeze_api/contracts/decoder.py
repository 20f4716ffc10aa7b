"""The one decoder of what trainers say of themselves: nobody vouches for them, and much that JSON may hold does harm later.

What is not in order is no message at all: half of it would be as little worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, Self

from pydantic import BaseModel
from pydantic_core import from_json

from unfreeze_api.grammar.model import Model
from unfreeze_api.grammar.reading import READING

MAX_DEPTH = 16
"""Levels of lists and objects. The contracts have four."""
MAX_COUNT = 2**53
"""Bound of every whole number: JSON readers that have floats alone still tell it from its neighbours."""
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""No training was before that. At the calendar's edges arithmetic with times overflows."""
MAX_AHEAD = timedelta(days=1)
"""How far the clock of a node may be ahead."""


class Said(Model):
    """A message of a trainer."""

    @classmethod
    def read(cls, text: str | bytes, now: datetime | None = None) -> Self:
        """Read a message; fields that are not known are ignored, but must be in order like all others.

        Parameters
        ----------
        text
            JSON, in UTF-8 when it is bytes.
        now
            The time, for times that lie ahead of it; by default the clock's.

        Raises
        ------
        ValueError
            It is not JSON of this model; it has surrogates, numbers that are not finite or beyond MAX_COUNT, or more
            than MAX_DEPTH levels; or a time has no zone, or lies before 2000 or after tomorrow.
        """
        raw = text.encode() if isinstance(text, str) else text
        for value in _values(from_json(raw, allow_inf_nan=False)):
            if isinstance(value, int) and abs(value) > MAX_COUNT:
                raise ValueError("a whole number is beyond 2**53")
            if isinstance(value, float) and not isfinite(value):
                raise ValueError("a number is not finite")
        said = cls.model_validate_json(raw, extra="ignore", context=READING)
        latest = (now or datetime.now(UTC)) + MAX_AHEAD
        for time in _times(said):
            if time.tzinfo is None or not EARLIEST <= time <= latest:
                raise ValueError(f"{time} has no zone, or lies before 2000 or after tomorrow")
        return said


def _values(tree: Any) -> Iterator[Any]:
    """Yield all that is in a JSON value, without recursion."""
    level, depth = [tree], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH + 1:
            raise ValueError(f"it has more than {MAX_DEPTH} levels")
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
            else:
                yield value
        level = inner


def _times(model: BaseModel) -> Iterator[datetime]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, datetime):
            yield value
            continue
        for inner in value if isinstance(value, list) else (value,):
            if isinstance(inner, BaseModel):
                yield from _times(inner)
