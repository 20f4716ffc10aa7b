"""The chart as manifests."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import yaml

from charts.generate import CHART
from tests.cluster import binaries

Json = dict[str, Any]
NAMESPACE = "unfreeze-system"
HELMS = ("helm", "helm3")


class RenderError(Exception):
    """Helm refuses the values, for this reason."""


def render_text(
    values: Json | None = None, *, release: str = "unfreeze", flags: tuple[str, ...] = (), helm: str = "helm"
) -> str:
    """Return what `helm template` prints."""
    command = [binaries.tool(helm), "template", release, CHART, "--namespace", NAMESPACE, "--values", "-", *flags]
    version = ["--kube-version", binaries.KUBERNETES_VERSION]  # Helm 3 takes an old one without
    done = subprocess.run(
        [*command, *version], input=json.dumps(values or {}), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RenderError(done.stderr)
    return done.stdout


def render(values: Json | None = None, *, release: str = "unfreeze", helm: str = "helm") -> list[Json]:
    """Return the manifests that these values install: without those of `helm test`."""
    text = render_text(values, release=release, flags=("--skip-tests",), helm=helm)
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def only(manifests: list[Json], kind: str, name: str = "") -> Json:
    """Return the one manifest of a kind, and of a name where there are several."""
    (found,) = (m for m in manifests if m["kind"] == kind and name in ("", m["metadata"]["name"]))
    return found


def kinds(manifests: list[Json]) -> set[str]:
    return {manifest["kind"] for manifest in manifests}
