"""Unions: `type` says which of several kinds it is, and a kind that has options has a member of their own.

    spec.adapter: {type: LoRA, lora: {r: 8}}

Kinds are declared once. Field `type` with its description, the members with theirs, and the rules about them follow.
"""

from __future__ import annotations

import builtins
import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field
from pydantic.alias_generators import to_camel, to_snake

from unfreeze_api.grammar.model import Model, Rule

_Options = TypeVar("_Options", bound=Model)


@dataclass(frozen=True, slots=True)
class Variant:
    """A kind of a union.

    Parameters
    ----------
    name
        The value of `type`.
    about
        What it is, as a part of the description of `type`.
    options
        Model of its options, NameSpec: they stand in a member `name`. None where there are none.
    needs
        The options that have no default, for the message when they are missing.
    """

    name: str
    about: str
    options: type[Model] | None = None
    needs: str = ""

    @property
    def field(self) -> str:
        """Name of the member with its options, in Python."""
        assert self.options is not None
        return _field_of(self.options.__name__)

    @property
    def member(self) -> str:
        """Name of the member with its options, on the wire."""
        return to_camel(self.field)


@cache
def _field_of(model: str) -> str:
    """Return a member's name by its model's: asked many times for each look at a job."""
    return to_snake(model.removesuffix("Spec"))


def only_with(member: str, selector: str, value: str) -> Rule:
    """Return the rule that a member is only there where a field has the value that it belongs to."""
    return Rule(
        f"!has(self.{member}) || self.{selector} == '{value}'",
        f"{member} is only allowed when {selector} is {value}",
        f".{member}",
    )


class OneOf(Model):
    """Base of unions: `class AdapterSpec(OneOf, kinds=(Variant(...), ...), noun="adapter")`."""

    kinds: ClassVar[tuple[Variant, ...]] = ()

    type: str

    def __init_subclass__(cls, *, kinds: tuple[Variant, ...] = (), noun: str = "", **options: Any) -> None:
        """Lay the fields and rules that follow from the kinds into a class, before pydantic collects its fields."""
        super().__init_subclass__(**options)
        if not kinds:
            return
        about = "; ".join(f"{kind.name} {kind.about}" for kind in kinds)
        fields: dict[str, Any] = {"type": Literal[tuple(kind.name for kind in kinds)]}
        cls.type = Field(description=f"{about[0].upper()}{about[1:]}.")
        belongs, needed = [], []
        for kind in kinds:
            if options_model := kind.options:
                fields[kind.field] = options_model | None
                description = f"Options of the {noun} {kind.name}, and of no other."
                setattr(cls, kind.field, Field(default=None, description=description))
                belongs.append(only_with(kind.member, "type", kind.name))
            if kind.needs:
                there = f"self.type != '{kind.name}' || has(self.{kind.member})"
                needed.append(Rule(there, f"type {kind.name} needs {kind.needs}"))
        cls.__annotations__ = fields | inspect.get_annotations(cls)
        cls.kinds, cls.rules = kinds, (*belongs, *needed, *cls.rules)

    @property
    def kind(self) -> Variant:
        """The kind that it is."""
        return next(kind for kind in self.kinds if kind.name == self.type)

    @property
    def options(self) -> Model | None:
        """The options of its kind: None where it has none, or where they were left out."""
        found: Model | None = getattr(self, self.kind.field) if self.kind.options else None
        return found

    def of(self, options: builtins.type[_Options]) -> _Options | None:
        """Return its options if they are of a class, as in `if lora := adapter.of(LoraSpec)`."""
        return found if isinstance(found := self.options, options) else None

    def completed(self) -> Self:
        """Return it with the options of its kind, which may be left out where everything in them has a default."""
        if self.kind.options is None or self.options is not None:
            return self
        return self.model_copy(update={self.kind.field: self.kind.options.model_validate({})})
