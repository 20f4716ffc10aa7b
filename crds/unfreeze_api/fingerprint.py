"""Which job a run belongs to, and what of a job a run keeps: its recipe.

A fingerprint hashes what a job's recipe says differently from the defaults, so that a field that is added to the API
moves no fingerprint until somebody sets it. Fields that change nothing of what is learned carry EXECUTION and are no
part of it; a default that changes later carries FirstDefault.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

from unfreeze_api.contracts.first_fields import FIRST_FIELDS, Fields, beyond_first
from unfreeze_api.grammar.model import EXECUTION, HABIT, Before, FirstDefault, Model

_FORMAT = "2"
_DIGITS = 16
_MISSING = object()
_M = TypeVar("_M", bound=Model)


def fingerprint(job: Model, derived: Fields) -> str:
    """Return FORMAT-HASH of what a resolved job's recipe says differently from its defaults.

    Parameters
    ----------
    job
        A ResolvedJob.
    derived
        What was filled in since nobody set it, by wire name: left out like any default.
    """
    text = json.dumps([_FORMAT, given(job, derived)], sort_keys=True)
    return f"{_FORMAT}-{hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}"


def first_fingerprint(job: Model, derived: Fields) -> str | None:
    """Return the fingerprint of the first format: a hash of every field; None for a job that it cannot describe.

    It has no format in front. Its runs are resumed for one release.
    """
    if beyond_first(given(job, derived, as_before=True)):
        return None
    other = {"schemaVersion", "name", "namespace", "distribution", "tracking", "hangTimeoutSeconds"}
    fields = {name: value for name, value in job.model_dump(mode="json").items() if name not in other}
    known = _without_paths(_known(fields, FIRST_FIELDS))
    known["output"] = {"export": known["output"]["export"]}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def _without_paths(value: Any) -> Any:
    """Return what the first format hashed: no paths, and two fields only where they are set."""
    if not isinstance(value, dict):
        return value
    unset = {name for name in ("adaLora", "quantization") if value.get(name) is None}
    return {name: _without_paths(item) for name, item in value.items() if name != "path" and name not in unset}


def given(
    model: Model, derived: Mapping[str, Any] | None = None, *, is_default: bool = False, as_before: bool = False
) -> Fields:
    """Return the fields of a recipe, by wire name, that differ from their defaults.

    Parameters
    ----------
    derived
        Further values, by wire name, that count as defaults.
    is_default
        Whether the model itself is a default: then a default that has changed counts as the first one.
    as_before
        Whether what all runs had before there was a field counts as a default too.
    """
    found: Fields = {}
    for name, key, field in _recipe_fields(type(model)):
        value, beneath = getattr(model, name), (derived or {}).get(key)
        had_before = any(isinstance(mark, Before) and mark.value == value for mark in field.metadata)
        if HABIT in field.metadata or (as_before and had_before):
            continue
        default = field.get_default(call_default_factory=True)
        first = next((mark.value for mark in field.metadata if isinstance(mark, FirstDefault)), default)
        if isinstance(value, Model):
            own = given(value, beneath, is_default=is_default, as_before=as_before)
            of_default = isinstance(default, Model) and given(default, beneath, is_default=True, as_before=as_before)
            if own != of_default:
                found[key] = own
        elif value not in (first, default if is_default else first) and (beneath is None or value != beneath):
            found[key] = (
                [given(one) if isinstance(one, Model) else one for one in value] if isinstance(value, list) else value
            )
    return found


def recipe(job: Model) -> Fields:
    """Return all fields of a resolved job that what is learned depends on, by wire name."""
    found: Fields = {}
    for name, key, _ in _recipe_fields(type(job)):
        value = getattr(job, name)
        found[key] = _recipe_of(value)
    return found


def _recipe_of(value: Any) -> Any:
    if isinstance(value, list):
        return [_recipe_of(one) for one in value]
    return recipe(value) if isinstance(value, Model) else value


def first_recipe(job: Model) -> Fields:
    """Return the recipe of a job in so far as its first readers knew its fields."""
    return _known(recipe(job), FIRST_FIELDS)


def _known(fields: Fields, known: Fields) -> Fields:
    return {
        name: _known(value, known[name]) if known[name] and isinstance(value, dict) else value
        for name, value in fields.items()
        if name in known
    }


def with_recipe(job: _M, stored: Fields) -> _M:
    """Return a job with the recipe that a run began with; how it is carried out stays as the job says.

    What the recipe lacks gets what all runs had that were begun before there was such a field.

    Raises
    ------
    pydantic.ValidationError
        The recipe has fields or values that this version does not know.
    """
    return type(job).model_validate(_merged(type(job), stored, job.model_dump(mode="json")))


def _merged(model: type[Model], stored: Fields, own: Fields) -> Fields:
    merged = dict(stored)
    for name, field in model.model_fields.items():
        key = field.alias or name
        inner = _model_of(field.annotation)
        before = next((mark.value for mark in field.metadata if isinstance(mark, Before)), _MISSING)
        if EXECUTION in field.metadata:
            merged.pop(key, None)
            if own.get(key) is not None:
                merged[key] = own[key]
        elif key in stored:
            if inner and isinstance(stored[key], dict):
                merged[key] = _merged(inner, stored[key], own.get(key) or {})
            elif inner and isinstance(stored[key], list):
                ours = own.get(key) or []
                ours = [*ours, *[{}] * len(stored[key])]
                merged[key] = [_merged(inner, *pair) for pair in zip(stored[key], ours, strict=False)]
        elif before is not _MISSING:
            merged[key] = before
        elif inner and isinstance(field.get_default(call_default_factory=True), Model):
            merged[key] = _merged(inner, {}, own.get(key) or {})
    return merged


def differences(one: Fields, other: Fields, path: str = "") -> Iterator[str]:
    """Yield what two recipes say differently, like `training.epochs is 3 and not 4`; the second one is called here."""
    for key in sorted({*one, *other}):
        mine, theirs, where = one.get(key), other.get(key), f"{path}{key}"
        if mine == theirs:
            continue
        if isinstance(mine, dict) and isinstance(theirs, dict):
            yield from differences(mine, theirs, f"{where}.")
        elif theirs is None:
            yield f"{where} is {_shown(mine)}, and not set here"
        elif mine is None:
            yield f"{where} is not set, and here {_shown(theirs)}"
        else:
            yield f"{where} is {_shown(mine)} and not {_shown(theirs)}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        value = {name: one for name, one in value.items() if one is not None}
    return json.dumps(value)


def _recipe_fields(model: type[Model]) -> Iterator[tuple[str, str, Any]]:
    """Yield name, wire name and declaration of the fields that what is learned depends on."""
    for name, field in model.model_fields.items():
        if EXECUTION not in field.metadata:
            yield name, field.alias or name, field


def _model_of(annotation: Any) -> type[Model] | None:
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, Model) else None
    return next((found for part in get_args(annotation) if (found := _model_of(part))), None)
