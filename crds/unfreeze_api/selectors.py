"""Label selectors, as Kubernetes has them everywhere."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unfreeze_api.fields import LABEL_KEY, LABEL_VALUE
from unfreeze_api.model import Model

SelectorKey = Annotated[str, Field(min_length=1, max_length=317, pattern=LABEL_KEY)]
SelectorValue = Annotated[str, Field(max_length=63, pattern=LABEL_VALUE)]


class LabelSelectorRequirement(Model):
    """One requirement on a label."""

    key: SelectorKey
    """Key of the label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label is compared with the values."""
    values: list[SelectorValue] | None = Field(default=None, max_length=64)
    """Values for In and NotIn; none with the other operators."""


class LabelSelector(Model):
    """Objects by their labels; an empty one selects all."""

    match_labels: dict[SelectorKey, SelectorValue] | None = Field(default=None, max_length=64)
    """Labels that an object must have."""
    match_expressions: list[LabelSelectorRequirement] | None = Field(default=None, max_length=64)
    """Requirements that the labels of an object must meet."""
