"""Checks of a manifest's metadata that the API server makes for every kind: names, labels, annotations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from unfreeze_api.apiserver.errors import Cause, invalid, required, too_long

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_SUBDOMAIN_LENGTH, _LABEL_LENGTH, _ANNOTATION_BYTES = 253, 63, 256 * 1024

_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'example.com', regex used for validation is '" + _SUBDOMAIN + "')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    " an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '" + _LABEL + "')"
)
_NAME_PART_TEXT = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
    " (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '" + _QUALIFIED + "')"
)
_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)

FIELDS = frozenset(
    {
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
        "managedFields",
    }
)


def check_metadata(metadata: dict[str, Any]) -> Iterator[Cause]:
    """Yield what is wrong with names, labels and annotations; what only the cluster writes is not looked at."""
    if prefix := metadata.get("generateName"):
        for message in _subdomain(prefix[:-1] + "a" if prefix.endswith("-") else prefix):
            yield invalid("metadata.generateName", prefix, message)
    name = metadata.get("name")
    if not name:
        yield required("metadata.name", "name or generateName is required")
    for message in _subdomain(name) if name else ():
        yield invalid("metadata.name", name, message)
    if namespace := metadata.get("namespace"):
        yield from _check_namespace(namespace)
    yield from _check_labels(metadata.get("labels") or {})
    yield from _check_annotations(metadata.get("annotations") or {})


def _check_namespace(namespace: str) -> Iterator[Cause]:
    if len(namespace) > _LABEL_LENGTH:
        yield invalid("metadata.namespace", namespace, _at_most(_LABEL_LENGTH))
    if not re.fullmatch(_LABEL, namespace):
        dotted = re.fullmatch(_SUBDOMAIN, namespace)
        yield invalid("metadata.namespace", namespace, "must not contain dots" if dotted else _LABEL_TEXT)


def _check_labels(labels: dict[str, str]) -> Iterator[Cause]:
    for key, value in labels.items():
        for message in _qualified_name(key):
            yield invalid("metadata.labels", key, message)
        if len(value) > _LABEL_LENGTH:
            yield invalid("metadata.labels", value, _at_most(_LABEL_LENGTH))
        if value and not re.fullmatch(_QUALIFIED, value):
            yield invalid("metadata.labels", value, _VALUE_TEXT)


def _check_annotations(annotations: dict[str, str]) -> Iterator[Cause]:
    for key in annotations:
        for message in _qualified_name(key.lower()):
            yield invalid("metadata.annotations", key, message)
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATION_BYTES:
        yield too_long("metadata.annotations", _ANNOTATION_BYTES)


def malformed(metadata: Any) -> str:
    """Return why metadata cannot be read at all, empty when it can: names and labels are texts."""
    if not isinstance(metadata, dict):
        return "metadata must be an object"
    for key in ("name", "generateName", "namespace"):
        if not isinstance(metadata.get(key, ""), str | None):
            return f"metadata.{key} must be a string: put it in quotes"
    for key in ("labels", "annotations"):
        values = metadata.get(key)
        if not isinstance(values, dict | None):
            return f"metadata.{key} must be an object"
        for name, value in (values or {}).items():
            if not isinstance(value, str | None):
                return f"metadata.{key}.{name} must be a string: put it in quotes"
    return ""


def _at_most(length: int) -> str:
    return f"must be no more than {length} bytes"


def _subdomain(text: str) -> Iterator[str]:
    if len(text) > _SUBDOMAIN_LENGTH:
        yield _at_most(_SUBDOMAIN_LENGTH)
    if not re.fullmatch(_SUBDOMAIN, text):
        yield _SUBDOMAIN_TEXT


def _qualified_name(key: str) -> Iterator[str]:
    prefix, slash, name = key.rpartition("/")
    if "/" in prefix:
        yield f"a valid label key {_NAME_PART_TEXT} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return
    if slash and not prefix:
        yield "prefix part must be non-empty"
    elif slash:
        yield from (f"prefix part {message}" for message in _subdomain(prefix))
    if not name:
        yield "name part must be non-empty"
    elif len(name) > _LABEL_LENGTH:
        yield f"name part {_at_most(_LABEL_LENGTH)}"
    if not re.fullmatch(_QUALIFIED, name):
        yield f"name part {_NAME_PART_TEXT}"
