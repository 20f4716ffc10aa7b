"""Types of single fields that several models share: names, labels, quantities; each with its rule."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from unfreeze_api.grammar.model import Rule, schema_rules

OBJECT_NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
# Suffixes as Kubernetes has them; a negative amount has no meaning here.
_QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"
_QUANTITY_RULE = Rule(
    f"type(self) == int ? int(self) >= 0 : string(self).matches(r'{_QUANTITY}')",
    "must be a quantity of Kubernetes, like 2, 500m or 64Gi",
)

Quantity = Annotated[
    int | str,
    Field(json_schema_extra={"x-kubernetes-int-or-string": True, "maxLength": 64, **schema_rules(_QUANTITY_RULE)}),
]
_NAME_RULE = Rule(
    f"self.matches(r'^{OBJECT_NAME}$')",
    "must be the name of an object: lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
)
Name = Annotated[str, Field(min_length=1, max_length=253, json_schema_extra=schema_rules(_NAME_RULE))]
_NAMESPACE_RULE = Rule(
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "must be the name of a namespace: lower-case letters, digits and '-', with a letter or digit at both ends",
)
NamespaceName = Annotated[str, Field(min_length=1, max_length=63, json_schema_extra=schema_rules(_NAMESPACE_RULE))]
_LABEL_RULE = Rule(
    "self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",
    "must be the value of a label: letters, digits, '-', '_' and '.', with a letter or digit at both ends",
)
LabelValue = Annotated[str, Field(max_length=63, json_schema_extra=schema_rules(_LABEL_RULE))]
# Two expressions, since the one that knows the characters cannot count those of the part before the slash.
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_KEY_TEXT = (
    "letters, digits, '-', '_' and '.', at most 63, with a letter or digit at both ends; before it, if anything, a DNS name"
    " of at most 253 characters and a '/'"
)


def _is_key(name: str) -> str:
    return rf"{name}.matches(r'^([^/]{{1,253}}/)?[^/]{{1,63}}$') && {name}.matches(r'^({OBJECT_NAME}/)?{_QUALIFIED}$')"


_KEY_RULE = Rule(_is_key("self"), f"must be the key of a label: {_KEY_TEXT}")
LabelKey = Annotated[str, Field(min_length=1, max_length=317, json_schema_extra=schema_rules(_KEY_RULE))]


def keyed(*rules: Rule) -> dict[str, Any]:
    """Return the `json_schema_extra` of a map whose keys are those of labels or annotations, with more rules on it."""
    keys = Rule(f"self.all(key, {_is_key('key')})", f"every key must be that of a label or annotation: {_KEY_TEXT}")
    return schema_rules(keys, *rules)


# As of every container: its own resources, pages of a size, or what a device plugin names.
_RESOURCE_RULE = Rule(
    "self.all(name, name in ['cpu', 'memory', 'ephemeral-storage'] || name.matches('^hugepages-[1-9][0-9]*[KMG]i$')"
    " || (name.matches(r'^[^/]{1,244}/[^/]{1,63}$') && name.matches(r'^"
    + OBJECT_NAME
    + "/"
    + _QUALIFIED
    + "$') && !name.startsWith('requests.')))",
    "every resource must be cpu, memory, ephemeral-storage, hugepages-SIZE or have a domain like nvidia.com/gpu",
)
Resources = Annotated[dict[str, Quantity], Field(max_length=32, json_schema_extra=schema_rules(_RESOURCE_RULE))]
EnvName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_SECRET_KEY_RULE = Rule(
    "self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",
    "must be the key of a Secret: letters, digits, '-', '_' and '.', not '.' alone and not with '..' in front",
)
SecretKey = Annotated[str, Field(min_length=1, max_length=253, json_schema_extra=schema_rules(_SECRET_KEY_RULE))]
_IMAGE_RULE = Rule(
    r"self.matches(r'^[][A-Za-z0-9._:/@-]+$')",
    "must be the reference of an image, like registry.example/team/trainer:1.2: letters, digits and . _ - : / @ [ ]",
)
Image = Annotated[str, Field(min_length=1, max_length=1024, json_schema_extra=schema_rules(_IMAGE_RULE))]
