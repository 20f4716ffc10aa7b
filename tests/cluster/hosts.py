"""The names of pods and Services, written into the hosts file of every pod, in place of a cluster DNS.

A headless Service gives its name to all its pods and ``<hostname>.<service>`` to each; a Service with a cluster
address resolves to its ready pods, which works for clients that use the target port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.api import Store

if TYPE_CHECKING:
    from tests.cluster.pod import PodRunner

Json = dict[str, Any]

DOMAIN = "svc.cluster.local"
SETTLE_SECONDS = 0.02
LOCAL = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


class HostsFiles:
    """Keeps the hosts files of this machine's pods up to date."""

    def __init__(self, pods: Store, services: Store) -> None:
        self._pods = pods
        self._services = services
        self._runners: dict[str, PodRunner] = {}
        self._stale = asyncio.Event()

    def add(self, runner: PodRunner) -> None:
        """Write the pod's file now; the containers that mount it start after this."""
        self._runners[runner.uid] = runner
        self._write(runner, self._records())

    def remove(self, runner: PodRunner) -> None:
        if self._runners.get(runner.uid) is runner:
            del self._runners[runner.uid]

    def changed(self) -> None:
        """A pod or a Service has changed."""
        self._stale.set()

    async def run(self) -> None:
        while True:
            await self._stale.wait()
            await asyncio.sleep(SETTLE_SECONDS)  # many changes come together
            self._stale.clear()
            records = self._records()
            for runner in self._runners.values():
                self._write(runner, records)

    def _records(self) -> list[tuple[str, str, str]]:
        return records(self._pods.items.values(), self._services.items.values())

    def _write(self, runner: PodRunner, entries: list[tuple[str, str, str]]) -> None:
        namespace = runner.pod["metadata"]["namespace"]
        subdomain = runner.pod["spec"].get("subdomain")
        full = f"{runner.hostname}.{subdomain}.{namespace}.{DOMAIN} " if subdomain else ""
        lines = [LOCAL, f"{runner.ip} {full}{runner.hostname}\n"]
        lines += [line(name, of, ip, namespace) for name, of, ip in entries]
        _rewrite(runner.folder / "hosts", "".join(lines).encode())


def records(pods: Iterable[Json], services: Iterable[Json]) -> list[tuple[str, str, str]]:
    """Return (name, namespace, address) of every name that a cluster's DNS would know."""
    by_namespace: dict[str, list[Json]] = {}
    for pod in pods:
        if pod.get("status", {}).get("podIP") and pod["status"].get("phase") not in ("Succeeded", "Failed"):
            by_namespace.setdefault(pod["metadata"]["namespace"], []).append(pod)
    found = []
    for service in services:
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        selector = service["spec"].get("selector")
        if not selector:
            continue
        headless = service["spec"].get("clusterIP") == "None"
        always = service["spec"].get("publishNotReadyAddresses", False)
        for pod in by_namespace.get(namespace, []):
            if not _selected(pod, selector) or not (always or _ready(pod)):
                continue
            ip = pod["status"]["podIP"]
            found.append((name, namespace, ip))
            if headless and pod["spec"].get("subdomain") == name and pod["spec"].get("hostname"):
                found.append((f"{pod['spec']['hostname']}.{name}", namespace, ip))
    return sorted(found)


def line(name: str, namespace: str, ip: str, viewer: str) -> str:
    """Return a line of a hosts file with every form of a name that a pod of namespace ``viewer`` may use."""
    forms = [f"{name}.{namespace}.{DOMAIN}", f"{name}.{namespace}.svc", f"{name}.{namespace}"]
    if namespace == viewer:
        forms.append(name)
    return f"{ip} {' '.join(forms)}\n"


def _selected(pod: Json, selector: dict[str, str]) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in selector.items())


def _ready(pod: Json) -> bool:
    if "deletionTimestamp" in pod["metadata"]:
        return False
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _rewrite(path: Path, content: bytes) -> None:
    """Write in place, so that bind mounts see it, and never shorter than a reader expects meanwhile."""
    try:
        if path.read_bytes() == content:
            return
        with path.open("r+b") as file:
            file.write(content)
            file.truncate()
    except FileNotFoundError:
        if path.parent.is_dir():
            path.write_bytes(content)
