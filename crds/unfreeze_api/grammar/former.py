"""What follows from a field's former name: rules that see whichever was given, what is said of it, where it stands.

A renamed field carries `Formerly`. It is a value, list or map without default: what the API server fills in under one
name cannot be told from what was given. Fields of the items of lists and maps are not looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from unfreeze_api.grammar.model import FirstDefault, Model, Rule, former_names

Path = tuple[str, ...]

UNCHANGED = "self == oldSelf"
"""The CEL rule of a value that cannot be changed."""
_DEPRECATED = "Deprecated: "


def description(new: str) -> str:
    """Return the description of a field under its former name; it starts as in Kubernetes' own types."""
    return f"{_DEPRECATED}the former name of {new}, gone in the next minor release."


def is_deprecated(node: dict[str, Any]) -> bool:
    """Whether a field of the CRD is there for its former name alone."""
    return str(node.get("description", "")).startswith(_DEPRECATED)


@cache
def renamed(model: type[Model]) -> tuple[tuple[Path, str], ...]:
    """Return the path of each renamed field within a model and its former name."""
    found: list[tuple[Path, str]] = [((new,), old) for old, new in former_names(model).items()]
    for name, field in _fields(model).items():
        if inner := _object(field):
            found += (((name, *path), old) for path, old in renamed(inner))
    return tuple(found)


def warnings(spec: dict[str, Any], model: type[Model]) -> list[str]:
    """Return an advice for each field of a spec that stands under its former name."""
    found = []
    for path, old in renamed(model):
        place: Any = spec
        for name in (*path[:-1], old):
            place = place.get(name) if isinstance(place, dict) else None
        if place is not None:
            found.append(_advice(path, old))
    return found


def checks(model: type[Model]) -> Iterator[tuple[str, str]]:
    """Yield for each renamed field a CEL expression that `object.spec` has its former name, and the advice then."""
    for path, old in renamed(model):
        place = ("object.spec", *path[:-1], old)
        above = (".".join(place[:end]) for end in range(2, len(place) + 1))
        yield " && ".join(f"has({each})" for each in above), _advice(path, old)


def _advice(path: Path, old: str) -> str:
    place = ".".join(("spec", *path[:-1], old))
    return f"{place} is deprecated: write {path[-1]}, the former name is gone in the next minor release"


def rules(model: type[Model]) -> Iterator[Rule]:
    """Yield the rules of a model: its own, made to see former names, and that nobody gives both names of a field.

    Raises
    ------
    TypeError
        When a field was renamed that is required, has a default or is an object.
    """
    for rule in model.rules:
        yield Rule(both_names(rule.rule, model), rule.message, rule.field)
    for old, new in former_names(model).items():
        field = _fields(model)[new]
        if _there(field) or _object(field):
            raise TypeError(
                f"{model.__name__}.{new} cannot have a former name: only an optional value, list or map without default"
                " can. What the API server fills in cannot be told from what was given"
            )
        message = f"{new} and {old}, its former name, are both set: remove {old}"
        yield Rule(f"!has(self.{old}) || !has(self.{new})", message, f".{old}")


def fixed(model: type[Model], names: Iterable[str], message: str, path: Path = ()) -> Iterator[tuple[Path, Rule]]:
    """Yield the rules that fields of a model cannot be changed, each with the path at which it stands.

    A rule stands at the very value wherever it can: for each field that a rule takes from an object the API server copies
    the schemas of all its fields, and it evaluates the rules about a spec with each write of a status too.

    Parameters
    ----------
    model, names
        The fields by their wire names.
    message
        What is said when one was changed.
    path
        Of the object within the spec.
    """
    for name in names:
        field = _fields(model)[name]
        inner = _object(field)
        moved = {place[0] for place, _ in renamed(model)} | {place[0] for place in _without_default_now(model)}
        if name not in moved:
            yield (*path, name), Rule(UNCHANGED, message)
            if not _there(field):
                yield path, Rule(f"has(self.{name}) == has(oldSelf.{name})", message, f".{name}")
        elif inner and _there(field):
            yield from fixed(inner, _fields(inner), message, (*path, name))
        else:
            yield path, Rule(both_names(_same(field, "", name), model), message, f".{name}")


def both_names(rule: str, model: type[Model]) -> str:
    """Return a CEL rule over today's names that sees a value under its former name, and a default that the server stored once.

    `self.x == oldSelf.x` of an object above a renamed field becomes a comparison of its members, so that a value that
    moved from the one name to the other is no change.
    """
    for path, old in renamed(model):
        rule = _by_members(rule, model, path)
        rule = _with_former(rule, ".".join(path), ".".join((*path[:-1], old)))
    for path in _without_default_now(model):
        rule = _by_members(rule, model, path)
    return rule


def _by_members(rule: str, model: type[Model], path: Path) -> str:
    """Return a CEL rule that compares the objects above a field member by member."""
    above, inner = "", model
    for name in path:
        whole = rf"\bself{re.escape(above)} == oldSelf{re.escape(above)}(?![\w.])"
        rule = re.sub(whole, _same_members(inner, above), rule)
        above, inner = f"{above}.{name}", _object(_fields(inner)[name]) or inner
    return rule


@cache
def _without_default_now(model: type[Model]) -> tuple[Path, ...]:
    """Return the paths of fields that had a default once and have none today.

    Jobs that are stored have it, and manifests that are applied again do not: that is no change.
    """
    found: list[Path] = []
    for name, field in _fields(model).items():
        if _first_default(field) is not None:
            found.append((name,))
        elif inner := _object(field):
            found += ((name, *path) for path in _without_default_now(inner))
    return tuple(found)


def _first_default(field: FieldInfo) -> object:
    """Return the default that a field had once, if it has none today."""
    if field.is_required() or field.get_default(call_default_factory=True) is not None:
        return None
    return next((mark.value for mark in field.metadata if isinstance(mark, FirstDefault)), None)


def _with_former(rule: str, today: str, former: str) -> str:
    """Return a CEL rule that takes a field, or asks for it, under either of its two paths."""

    def either(mention: re.Match[str]) -> str:
        first, second = f"{mention['root']}.{today}", f"{mention['root']}.{former}"
        return f"(has({first}) || has({second}))" if mention["has"] else f"(has({first}) ? {first} : {second})"

    return re.sub(rf"(?P<has>has\()?\b(?P<root>self|oldSelf)\.{re.escape(today)}\b(?(has)\))", either, rule)


def _same_members(model: type[Model], path: str) -> str:
    """Return the CEL expression that an object at a path has the same members in self and oldSelf, by today's names."""
    return f"({' && '.join(_same(field, path, name) for name, field in _fields(model).items())})"


def _same(field: FieldInfo, path: str, name: str) -> str:
    """Return the CEL expression that a field of the object at a path is the same in self and oldSelf, by today's name."""
    now, before = f"self{path}.{name}", f"oldSelf{path}.{name}"
    same = f"{now} == {before}"
    if (first := _first_default(field)) is not None:
        now, before = (f"(has({place}) ? {place} : '{first}')" for place in (now, before))
        return f"{now} == {before}"
    return same if _there(field) else f"has({now}) == has({before}) && (!has({now}) || {same})"


@cache
def _fields(model: type[Model]) -> dict[str, FieldInfo]:
    """Return a model's fields by wire name."""
    return {str(field.alias): field for field in model.model_fields.values()}


def _there(field: FieldInfo) -> bool:
    """Whether the API server stores a field in any case, since it is required or has a default."""
    return field.is_required() or field.get_default(call_default_factory=True) is not None


def _object(field: FieldInfo) -> type[Model] | None:
    """Return the model of a field that holds one object; None of a value, list or map."""
    held = field.annotation
    parts = get_args(held) if get_origin(held) in (Union, UnionType) else (held,)
    return next((part for part in parts if isinstance(part, type) and issubclass(part, Model)), None)
