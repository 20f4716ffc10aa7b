"""The chart as manifests."""

from __future__ import annotations

import functools
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
    return _template(helm, release, flags, json.dumps(values or {}))


@functools.cache
def _template(helm: str, release: str, flags: tuple[str, ...], values: str) -> str:
    """Run Helm once for each question: many tests look at what the defaults make."""
    command = [binaries.tool(helm), "template", release, CHART, "--namespace", NAMESPACE, "--values", "-", *flags]
    version = ["--kube-version", binaries.KUBERNETES_VERSION]  # Helm 3 takes an old one without
    done = subprocess.run([*command, *version], input=values, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RenderError(done.stderr)
    return done.stdout


def render(values: Json | None = None, *, release: str = "unfreeze", helm: str = "helm") -> list[Json]:
    """Return the manifests that these values install: without those of `helm test`."""
    return parsed(render_text(values, release=release, flags=("--skip-tests",), helm=helm))


def parsed(text: str) -> list[Json]:
    """Return the manifests in a text; by libyaml, as the CRD is long."""
    return [manifest for manifest in yaml.load_all(text, yaml.CSafeLoader) if manifest]


def only(manifests: list[Json], kind: str, name: str = "") -> Json:
    """Return the one manifest of a kind, and of a name where there are several."""
    (found,) = (m for m in manifests if m["kind"] == kind and name in ("", m["metadata"]["name"]))
    return found


def kinds(manifests: list[Json]) -> set[str]:
    return {manifest["kind"] for manifest in manifests}
