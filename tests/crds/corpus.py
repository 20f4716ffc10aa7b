"""The corpus of manifests, good and bad, and how to ask a real API server about them."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.cluster import Cluster
from unfreeze_api.apiserver.errors import Cause
from unfreeze_api.apiserver.manifest import Loader

FOLDER = Path(__file__).parent / "corpus"
PATH = "/apis/unfreeze.dev/v1alpha1/namespaces/{namespace}/finetunejobs"


def load(file: str) -> Any:
    """Return what a file of the corpus holds."""
    return yaml.load((FOLDER / file).read_text(), Loader)


def released(version: str) -> dict[str, Any]:
    """Return the CRD as a release had it."""
    found: dict[str, Any] = json.loads(lzma.decompress((FOLDER / f"crd-{version}.json.xz").read_bytes()))
    return found


def parameters(file: str) -> list[Any]:
    """Return the cases of a file as parameters of a test, named."""
    return [pytest.param(case, id=case["name"]) for case in load(file)]


def patched(manifest: Any, patch: Any) -> Any:
    """Return a manifest with a merge patch (RFC 7386) applied."""
    if not isinstance(patch, dict):
        return patch
    out = dict(manifest) if isinstance(manifest, dict) else {}
    for key, value in patch.items():
        out[key] = patched(out.get(key), value)
        if value is None:
            del out[key]
    return out


def ask_create(cluster: Cluster, namespace: str, manifest: dict[str, Any]) -> tuple[dict[str, Any], list[Cause]]:
    """Return what the API server would store, and what it has against it; nothing is stored."""
    path = PATH.format(namespace=namespace) + "?dryRun=All&fieldValidation=Strict"
    return _answer(*cluster.request("POST", path, manifest))


def ask_update(cluster: Cluster, namespace: str, stored: dict[str, Any], new: dict[str, Any]) -> list[Cause]:
    """Return what the API server has against replacing a stored object; nothing is stored."""
    path = f"{PATH.format(namespace=namespace)}/{stored['metadata']['name']}?dryRun=All&fieldValidation=Strict"
    version = {"resourceVersion": stored["metadata"]["resourceVersion"]}
    return _answer(*cluster.request("PUT", path, new | {"metadata": new["metadata"] | version}))[1]


def _answer(status: int, answer: dict[str, Any]) -> tuple[dict[str, Any], list[Cause]]:
    if status < 300:
        return answer, []
    if causes := answer.get("details", {}).get("causes"):
        return {}, sorted(Cause(cause.get("field", ""), cause["message"], cause["reason"]) for cause in causes)
    # A body that cannot be decoded has no causes: what is wrong stands behind a general text.
    _, mark, rest = answer["message"].partition("strict decoding error: ")
    return {}, [Cause("", mark + rest if mark else json.dumps(answer), answer["reason"])]
