"""Columns of a table: what a kind of task reads, and models that have a field for each of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic.alias_generators import to_snake

from unfreeze_api.grammar.model import Model, Since

MAX_NAME = 256
"""Characters of a column's name."""
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
"""Name of a column in a table."""
Names = Annotated[list[Name], Field(min_length=1, max_length=64)]
"""Names of several."""


@dataclass(frozen=True, slots=True)
class Column:
    """What is read of each row.

    Parameters
    ----------
    name
        Its field in `columns`, on the wire, and by default its name in the table.
    about
        What it holds, as a part of a description: `with the text`.
    optional
        Whether it is read only where somebody names it.
    many
        Whether it stands for several columns; optional then.
    """

    name: str
    about: str
    optional: bool = False
    many: bool = False

    @property
    def field(self) -> str:
        """Its field, in Python."""
        return to_snake(self.name)


class Columned(Model):
    """Base of models with a field for each column: `class ColumnsSpec(Columned, columns=..., named=False)`."""

    def __init_subclass__(
        cls, *, columns: Iterable[tuple[Column, str]] = (), named: bool = False, **options: Any
    ) -> None:
        """Lay the fields into a class, before pydantic collects them.

        Parameters
        ----------
        columns
            Columns, each with the description of its field.
        named
            Whether a column that nobody names has its own name, or none.
        """
        super().__init_subclass__(**options)
        fields: dict[str, Any] = {}
        for column, description in columns:
            fields[column.field] = _named(column) if named else (Names if column.many else Name) | None
            default = column.name if named and not column.optional else None
            setattr(cls, column.field, Field(default=default, description=description))
        cls.__annotations__ = fields | inspect.get_annotations(cls)

    if TYPE_CHECKING:  # which columns there are is known when the tasks are

        def __getattr__(self, name: str) -> str: ...


def _named(column: Column) -> Any:
    """Return the type of a column's name in job.json; a trainer that does not know an optional one must not ignore it."""
    if column.optional:
        return Annotated[(list[str] if column.many else str) | None, Since(2)]
    return str
