"""Label selectors, as Kubernetes has them everywhere."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.fields import LabelKey, LabelValue, keyed
from unfreeze_api.grammar.model import Model, Rule


class LabelSelectorRequirement(Model):
    """One requirement on a label."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
            "values are for In and NotIn, which need at least one; Exists and DoesNotExist have none",
            ".values",
        ),
    )

    key: LabelKey
    """Key of the label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label is compared with the values."""
    values: list[LabelValue] | None = Field(default=None, max_length=16)
    """Values for In and NotIn; none with the other operators."""


class LabelSelector(Model):
    """Objects by their labels; an empty one selects all."""

    match_labels: dict[str, LabelValue] | None = Field(default=None, max_length=16, json_schema_extra=keyed())
    """Labels that an object must have."""
    match_expressions: list[LabelSelectorRequirement] | None = Field(default=None, max_length=16)
    """Requirements that the labels of an object must meet."""
