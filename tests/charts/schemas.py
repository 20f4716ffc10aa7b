"""The schemas of a running API server as kubeconform wants them: one closed JSON Schema for each kind."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
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
        paths = cluster.get("/openapi/v3")["paths"]
        for path in paths:
            if path.startswith(("api/", "apis/")) and path.rpartition("/")[2].startswith("v"):
                components = cluster.get(f"/openapi/v3/{path}")["components"]
                _write(components.get("schemas", {}), folder)

    def check(self, texts: Mapping[str, str]) -> dict[str, list[str]]:
        """Return what is wrong with each of some texts of manifests, by the texts' names: the fields that do not fit.

        All in one run: most of its time goes into reading the schemas.
        """
        with tempfile.TemporaryDirectory() as folder:
            files = {f"{folder}/{number}.yaml": name for number, name in enumerate(texts)}
            for file, name in files.items():
                Path(file).write_text(texts[name])
            command = [binaries.tool("kubeconform"), "-strict", "-schema-location", self._location, "-output", "json"]
            done = subprocess.run([*command, "-verbose", folder], capture_output=True, text=True, check=False)
        found: dict[str, list[str]] = {}
        for resource in json.loads(done.stdout)["resources"]:
            wrong = found.setdefault(files[resource["filename"]], [])
            if resource["status"] not in ("statusValid", "statusEmpty"):
                wrong.append(f"{resource['kind']} {resource['name']}: {resource['msg']}")
        return found


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
