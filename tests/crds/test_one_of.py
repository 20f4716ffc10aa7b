"""Unions: what follows from their kinds, in Python, in the CRD and in rules."""

from typing import Literal

import pytest
from pydantic import ValidationError

from unfreeze_api.generate.crd import _structural_root
from unfreeze_api.grammar.model import Model, Rule
from unfreeze_api.grammar.one_of import OneOf, Variant


class RoundSpec(Model):
    """Options of Round."""

    radius: float = 1.0
    """How large."""


class LShapeSpec(Model):
    """Options of LShape."""

    arm: float
    """How long."""


KINDS = (
    Variant("Round", "has no corners", RoundSpec),
    Variant("LShape", "has six", LShapeSpec, needs="lShape.arm"),
    Variant("Point", "has one"),
)


class ShapeSpec(OneOf, kinds=KINDS, noun="shape"):
    """A shape."""

    rules = (Rule("self.type != 'Point' || self.colour == 'Red'", "points are red", ".colour"),)

    colour: Literal["Red", "Blue"] = "Red"
    """What it looks like."""


def test_the_crd_has_type_members_and_what_the_class_adds():
    schema = _structural_root(ShapeSpec)
    assert list(schema["properties"]) == ["type", "round", "lShape", "colour"]
    kind = schema["properties"]["type"]
    assert kind["enum"] == ["Round", "LShape", "Point"]
    assert kind["description"] == "Round has no corners; LShape has six; Point has one."
    assert schema["properties"]["lShape"]["description"] == "Options of the shape LShape, and of no other."
    assert schema["required"] == ["type"]


def test_rules_say_which_member_belongs_to_which_type():
    assert [(rule["rule"], rule["message"]) for rule in _structural_root(ShapeSpec)["x-kubernetes-validations"]] == [
        ("!has(self.round) || self.type == 'Round'", "round is only allowed when type is Round"),
        ("!has(self.lShape) || self.type == 'LShape'", "lShape is only allowed when type is LShape"),
        ("self.type != 'LShape' || has(self.lShape)", "type LShape needs lShape.arm"),
        ("self.type != 'Point' || self.colour == 'Red'", "points are red"),
    ]


def test_options_are_those_of_its_type():
    shape = ShapeSpec.model_validate({"type": "LShape", "lShape": {"arm": 2}})
    assert shape.of(LShapeSpec).arm == 2
    assert shape.of(RoundSpec) is None
    assert shape.completed() == shape
    bare = ShapeSpec.model_validate({"type": "Round"})
    assert bare.options is None
    assert bare.completed().of(RoundSpec).radius == 1
    point = ShapeSpec.model_validate({"type": "Point"})
    assert (point.options, point.completed()) == (None, point)


def test_wire_names_are_those_of_the_options():
    assert ShapeSpec.model_validate({"type": "LShape", "lShape": {"arm": 2}}).to_json() == (
        '{"type":"LShape","lShape":{"arm":2.0},"colour":"Red"}'
    )


@pytest.mark.parametrize("given", [{"type": "Star"}, {}, {"type": "Point", "star": {}}])
def test_what_is_none_of_its_kinds_is_refused(given):
    with pytest.raises(ValidationError):
        ShapeSpec.model_validate(given)
