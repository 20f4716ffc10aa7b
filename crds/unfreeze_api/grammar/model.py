"""What every model of the API is made of: strict camelCase models, and CEL rules that stand beside their fields."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from unfreeze_api.grammar.reading import READING


@dataclass(frozen=True, slots=True)
class Rule:
    """A cross-field rule, one text with one meaning: the API server and `unfreeze validate` both evaluate it.

    Parameters
    ----------
    rule
        A CEL expression over `self`, the object that carries the rule, and `oldSelf` in rules about updates.
    message
        What the person who wrote the manifest reads: what is wrong and what to do.
    field
        The path below `self` that the message is about, like `.type`; the object itself when empty.
    """

    rule: str
    message: str
    field: str = ""

    def to_schema(self) -> dict[str, str]:
        """Return the rule as an entry of `x-kubernetes-validations`."""
        return {"rule": self.rule, "message": self.message} | ({"fieldPath": self.field} if self.field else {})


def schema_rules(*rules: Rule) -> dict[str, Any]:
    """Return the `json_schema_extra` that lays rules on a single value, where no model carries them."""
    return {"x-kubernetes-validations": [rule.to_schema() for rule in rules]}


ONCE = "oldSelf.hasValue() || "
"""How the CEL of a rule begins that is about new objects alone."""


def once(rule: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of `x-kubernetes-validations` that is about new objects alone, since what it is about cannot be changed."""
    return rule | {"rule": f"{ONCE}({rule['rule']})", "optionalOldSelf": True}


class Execution:
    """Marks a field about how a run is carried out, which changes nothing of what is learned.

    No fingerprint has it, and a run that resumes takes it from the job.json at hand, not from its folder.
    """


EXECUTION = Execution()


class Habit:
    """Marks what no field of the spec says, but the version that a run began with: in its recipe, and in no fingerprint.

    The same job is the same, whichever version has begun its run.
    """


HABIT = Habit()


@dataclass(frozen=True, slots=True)
class FirstDefault:
    """Marks a field whose default has changed: fingerprints leave out the first default, whatever it is now."""

    value: Any


@dataclass(frozen=True, slots=True)
class Before:
    """Marks a field with the value of all runs that were begun before there was the field."""

    value: Any


@dataclass(frozen=True, slots=True)
class Formerly:
    """A field's former wire name, which manifests may still give: `exports: Annotated[..., Formerly("export")]`.

    Nothing else is edited: models, CRD, rules, defaults, documents and warnings follow, see former.py. When the release
    that still takes the name is over, the mark goes.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Since:
    """Marks a field of job.json that a trainer must not ignore: where it is set, schemaVersion is at least this one.

    Trainers ignore fields that they do not know, and refuse a schemaVersion that they do not know. Every field that came
    after the first release and changes what is learned has this mark, the version of its release.
    """

    schema_version: int


class Model(BaseModel):
    """A strict model: fields in camelCase on the wire, unknown fields refused, immutable once built."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="forbid",
        frozen=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _take_former_names(cls, given: Any) -> Any:
        """Put what stands under a former name under today's."""
        former = former_names(cls)
        if not isinstance(given, dict) or former.keys().isdisjoint(given):
            return given
        out = {name: value for name, value in given.items() if name not in former}
        for old in former.keys() & given.keys():
            if out.get(former[old]) is None:
                out[former[old]] = given[old]
        return out

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the JSON of this model in wire names, without fields that are not set."""
        return self.model_dump_json(by_alias=True, exclude_none=True, indent=indent)

    @classmethod
    def read(cls, text: str | bytes) -> Self:
        """Read JSON that another program wrote, perhaps of another version: fields that are not known are ignored.

        Raises
        ------
        ValueError
            It is not JSON of this model.
        """
        return cls.model_validate_json(text, extra="ignore", context=READING)


@cache
def former_names(model: type[Model]) -> dict[str, str]:
    """Return today's wire name for each former one that a model's own fields have."""
    fields = model.model_fields.values()
    return {mark.name: str(field.alias) for field in fields for mark in field.metadata if isinstance(mark, Formerly)}
