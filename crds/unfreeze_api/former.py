"""What follows from a field's former name: rules that see whichever was given, what is said of it, where it stands.

A renamed field carries `Formerly`. It has no default, or is an object that is empty by default: what the API server fills
in under one name cannot be told from what was given. Rules and the immutability of what is above a renamed field know
both names; fields of a list's items are left alone there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from unfreeze_api.model import Model, Rule, former_names

Path = tuple[str, ...]

_DEPRECATED = "Deprecated: "


def description(new: str) -> str:
    """Return the description of a field under its former name; it starts as in Kubernetes' own types."""
    return f"{_DEPRECATED}the former name of {new}, gone in the next minor release."


def is_deprecated(node: dict[str, Any]) -> bool:
    """Whether a field of the CRD is there for its former name alone."""
    return str(node.get("description", "")).startswith(_DEPRECATED)


def advice(path: str, new: str) -> str:
    """Return what is said to whoever gives a field its former name."""
    return f"{path} is deprecated: write {new}, the former name is gone in the next minor release"


def warnings(given: dict[str, Any], model: type[Model], path: str = "spec") -> list[str]:
    """Return an advice for each field that stands under its former name in a part of a manifest."""
    found = []
    former = former_names(model)
    fields = _fields(model)
    for name, value in given.items():
        where = f"{path}.{name}"
        if name in former and value not in (None, {}):
            found.append(advice(where, former[name]))
        field = fields.get(former.get(name, name))
        inner = next(_models(field.annotation), None) if field else None
        if inner is not None:
            for place, part in _objects(value, where):
                found += warnings(part, inner, place)
    return found


def _objects(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        yield path, value
    for index, item in enumerate(value if isinstance(value, list) else ()):
        yield from _objects(item, f"{path}[{index}]")


def renamed(model: type[Model], path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield the path of each renamed field within a model, lists left out, and its former name."""
    for old, new in former_names(model).items():
        yield (*path, new), old
    for name, field in _fields(model).items():
        inner = _object(field)
        if inner is not None:
            yield from renamed(inner, (*path, name))


def checks(model: type[Model], root: str) -> Iterator[tuple[str, str]]:
    """Yield for each renamed field a CEL expression that it was given its former name, and the advice then.

    Parameters
    ----------
    model
        Of the object that `root` names, like `object.spec`; nothing in it need be there.
    root
        A path of CEL. The advice starts with its last name.
    """
    for path, old in renamed(model):
        place = (*path[:-1], old)
        above = [f"has({'.'.join((root, *place[:end]))})" for end in range(1, len(place))]
        inner = _at(model, path)
        expression = " && ".join([*above, _given(".".join((root, *path[:-1])), old, inner)])
        yield expression, advice(".".join((root.rpartition(".")[2], *place)), path[-1])


def _given(root: str, name: str, inner: type[Model] | None) -> str:
    """Return the CEL expression that a field of an object is there, and in it anything if it is an object."""
    members = " || ".join(f"has({root}.{name}.{member})" for member in _fields(inner)) if inner is not None else ""
    return f"has({root}.{name})" + (f" && ({members})" if members else "")


def rules(model: type[Model]) -> Iterator[Rule]:
    """Yield the rules of a model: its own, made to see former names, and that nobody gives both names of a field.

    Raises
    ------
    TypeError
        When a field was renamed that the API server fills in.
    """
    for rule in model.rules:
        yield Rule(both_names(rule.rule, model), rule.message, rule.field)
    for old, new in former_names(model).items():
        inner = _object(_fields(model)[new])
        _check(model, new, inner)
        yield Rule(
            f"!({_given('self', old, inner)}) || !({_given('self', new, inner)})",
            f"{new} and {old}, its former name, are both set: remove {old}",
            f".{old}",
        )


def _check(model: type[Model], name: str, inner: type[Model] | None) -> None:
    field = _fields(model)[name]
    default = field.get_default(call_default_factory=True)
    members = _fields(inner).values() if inner is not None else ()
    empty = inner is not None and isinstance(default, Model) and not default.model_dump(exclude_none=True)
    if field.is_required() or not ((default is None and inner is None) or empty) or any(map(_there, members)):
        raise TypeError(
            f"{model.__name__}.{name} cannot have a former name: the API server fills it in, so that nobody can tell"
            " whether it was given. Complete it in resolve() instead"
        )


_MENTION = re.compile(
    r"\bself\.(?P<same>[\w.]+) == oldSelf\.(?P=same)(?![\w.])"
    r"|\bhas\((?P<has>(?:self|oldSelf)\.[\w.]+)\)"
    r"|\b(?P<value>(?:self|oldSelf)\.[\w.]+)"
)


def both_names(rule: str, model: type[Model]) -> str:
    """Return a CEL rule over today's names that sees a value under its former name too.

    `self.x == oldSelf.x` of an object above a renamed field becomes a comparison of its members, so that a value that
    moved from the one name to the other is no change.

    Raises
    ------
    TypeError
        When a rule takes a renamed object as a whole, whose members may stand in two places.
    """
    paths = [path for path, _ in renamed(model)]
    if not paths:
        return rule

    def replace(match: re.Match[str]) -> str:
        if match["same"]:
            path = tuple(match["same"].split("."))
            met = [other for other in paths if all(one == two for one, two in zip(path, other, strict=False))]
            base = min((len(other) - 1 for other in met), default=0)
            return f"({_same(model, path, min(base, len(path)))})" if met else match[0]
        root, *names = (match["has"] or match["value"]).split(".")
        length = next((len(path) for path in paths if tuple(names[: len(path)]) == path), 0)
        if not length:
            return match[0]
        field, rest = _known(model, tuple(names), length)
        if match["has"] and not rest:
            return f"({_present(model, field, root, length - 1) or 'true'})"
        if _at(model, field) is not None and field in paths:
            raise TypeError(f"a rule cannot take {'.'.join(field)} as a whole, which has two names: {rule}")
        text = ".".join((_value(model, field, root, length - 1), *rest))
        return f"has({text})" if match["has"] else text

    return _MENTION.sub(replace, rule)


def _known(model: type[Model], names: Path, least: int) -> tuple[Path, Path]:
    """Split a dotted path into what the model has and what comes after it, like a function of CEL."""
    length, inner = 0, model
    for name in names:
        field = _fields(inner).get(name)
        if field is None:
            break
        length += 1
        below = _object(field)
        if below is None:
            break
        inner = below
    assert length >= least
    return names[:length], names[length:]


def _same(model: type[Model], path: Path, base: int) -> str:
    """Return the CEL expression that what stands at a path is the same in self and oldSelf; see `_present` for `base`."""
    inner = _at(model, path)
    if inner is None or (len(_alternatives(model, path)) == 1 and not any(renamed(inner))):
        return _same_value(model, path, base)
    parts = []
    for name, field in _fields(inner).items():
        member = (*path, name)
        below = _object(field)
        if below is not None and any(renamed(below)) and not _there(field):
            now, before = (_present(model, member, root, len(path)) for root in ("self", "oldSelf"))
            parts.append(f"({now}) == ({before}) && (!({now}) || ({_same(model, member, len(member))}))")
        else:
            parts.append(_same(model, member, base))
    return " && ".join(parts)


def _same_value(model: type[Model], path: Path, base: int) -> str:
    now, before = (_present(model, path, root, base) for root in ("self", "oldSelf"))
    values = " == ".join(_value(model, path, root, base) for root in ("self", "oldSelf"))
    return f"({now}) == ({before}) && (!({now}) || {values})" if now else values


def _alternatives(model: type[Model], path: Path) -> list[Path]:
    """Return every path that a field may stand at, today's first."""
    if not path:
        return [()]
    head, rest = path[0], path[1:]
    names = [head, *(old for old, new in former_names(model).items() if new == head)]
    inner = _object(_fields(model)[head])
    tails = _alternatives(inner, rest) if inner is not None else [rest]
    return [(name, *tail) for name in names for tail in tails]


def _present(model: type[Model], path: Path, root: str, base: int) -> str:
    """Return the CEL expression that a field is there under one of its names; empty when it always is.

    The objects above `base` names of the path are there.
    """
    texts = [_stands(model, alternative, root, base) for alternative in _alternatives(model, path)]
    return " || ".join(texts) if all(texts) else ""


def _stands(model: type[Model], path: Path, root: str, base: int) -> str:
    """Return the CEL expression that a path, of any names, is there; empty when it always is."""
    texts = []
    inner: type[Model] | None = model
    for end, name in enumerate(path, 1):
        assert inner is not None
        old = name in former_names(inner)
        field = _fields(inner)[former_names(inner).get(name, name)]
        if end > base and (old or not _there(field)):
            texts.append(f"has({'.'.join((root, *path[:end]))})")
        inner = _object(field)
    return " && ".join(texts)


def _value(model: type[Model], path: Path, root: str, base: int) -> str:
    """Return the CEL expression of a field that is there under one of its names."""
    *first, last = _alternatives(model, path)
    text = ".".join((root, *last))
    for alternative in reversed(first):
        text = f"({_stands(model, alternative, root, base)} ? {'.'.join((root, *alternative))} : {text})"
    return text


def _at(model: type[Model], path: Path) -> type[Model] | None:
    inner: type[Model] | None = model
    for name in path:
        inner = _object(_fields(inner)[name]) if inner is not None else None
    return inner


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
    return next((part for part in parts if _is_model(part)), None)


def _models(annotation: Any) -> Iterator[type[Model]]:
    """Yield the models within an annotation, those of a list's items too."""
    if _is_model(annotation):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Model)
