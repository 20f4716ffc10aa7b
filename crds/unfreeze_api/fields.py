"""Types of single fields that several models share: sources, names, labels, quantities; each with its rule."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from unfreeze_api.model import Rule, schema_rules

_NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
# No path may step out of its claim by `..`.
_SEGMENT = r"([^/.]|\.[^/.]|\.\.[^/])[^/]*"
SOURCE_PATTERN = rf"^(pvc://{_NAME}(/{_SEGMENT})*|file://(/{_SEGMENT})+)$"

_SOURCE_RULE = Rule(
    f"self.matches(r'{SOURCE_PATTERN}')",
    "must be pvc://CLAIM/PATH or file:///PATH, without '..', '//' or a '/' at the end",
)
# Suffixes as Kubernetes has them; a negative amount has no meaning here.
_QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"
_QUANTITY_RULE = Rule(
    f"type(self) == int ? int(self) >= 0 : string(self).matches(r'{_QUANTITY}')",
    "must be a quantity of Kubernetes, like 2, 500m or 64Gi",
)

Source = Annotated[str, Field(min_length=1, max_length=1024, json_schema_extra=schema_rules(_SOURCE_RULE))]
Column = Annotated[str, Field(min_length=1, max_length=256)]
Quantity = Annotated[
    int | str,
    Field(json_schema_extra={"x-kubernetes-int-or-string": True, "maxLength": 64, **schema_rules(_QUANTITY_RULE)}),
]
_NAME_RULE = Rule(
    f"self.matches(r'^{_NAME}$')",
    "must be the name of an object: lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
)
Name = Annotated[str, Field(min_length=1, max_length=253, json_schema_extra=schema_rules(_NAME_RULE))]
_QUALIFIED = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LABEL_KEY = rf"^({_NAME}/)?{_QUALIFIED}$"
"""Key of a label: a name of at most 63 characters, after a DNS name and a slash if any."""
LABEL_VALUE = rf"^({_QUALIFIED})?$"
"""Value of a label."""
_LABEL_RULE = Rule(
    "self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",
    "must be the value of a label: letters, digits, '-', '_' and '.', with a letter or digit at both ends",
)
LabelValue = Annotated[str, Field(max_length=63, json_schema_extra=schema_rules(_LABEL_RULE))]
EnvName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
