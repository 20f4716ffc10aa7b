"""The schemas of a running API server as kubeconform wants them: one closed JSON Schema for each kind."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.cluster import binaries
from tests.cluster.cluster import Cluster

Json = dict[str, Any]
LOCATION = "{{.ResourceKind}}{{.KindSuffix}}.json"


class Kubeconform:
    """kubeconform with the kinds that a cluster serves now, CRDs included, kept in a folder."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._location = str(folder / LOCATION)
        paths = json.loads(cluster.kubectl("get", "--raw", "/openapi/v3"))["paths"]
        for path in paths:
            if path.startswith(("api/", "apis/")) and path.rpartition("/")[2].startswith("v"):
                components = json.loads(cluster.kubectl("get", "--raw", f"/openapi/v3/{path}"))["components"]
                _write(components.get("schemas", {}), folder)

    def check(self, manifests: str) -> None:
        """Raise AssertionError with every field that does not fit."""
        command = [binaries.tool("kubeconform"), "-strict", "-schema-location", self._location, "-"]
        done = subprocess.run(command, input=manifests, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def _write(schemas: Json, folder: Path) -> None:
    closed = {"components": {"schemas": {name: _closed(schema) for name, schema in schemas.items()}}}
    for name, schema in schemas.items():
        for kind in schema.get("x-kubernetes-group-version-kind", ()):
            suffix = "-".join(part for part in (kind["group"].split(".")[0], kind["version"]) if part)
            path = folder / f"{kind['kind'].lower()}-{suffix}.json"
            path.write_text(json.dumps({"$ref": f"#/components/schemas/{name}", **closed}))


def _closed(node: Any) -> Any:
    """Forbid unknown fields wherever the fields are known."""
    if isinstance(node, list):
        return [_closed(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    out = {key: _closed(inner) for key, inner in node.items()}
    if isinstance(node.get("properties"), dict) and not node.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("additionalProperties", False)
    return out
