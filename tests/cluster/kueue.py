"""Kueue on a cluster: the real controller with its CRDs and webhooks, as a process of this machine."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from typing import Any, Self

import yaml

from tests.cluster import binaries
from tests.cluster.cluster import Cluster
from tests.cluster.pki import Authority

Json = dict[str, Any]

START_SECONDS = 60.0
_GROUPS = {"batch", "kueue.x-k8s.io"}
"""API groups whose webhooks are installed: Jobs, and Kueue's own kinds. The others' kinds do not exist here."""


_WITH_CERTIFICATES = """
mount -t tmpfs tmpfs /etc
mkdir -p /etc/kueue/metrics
ln -s "$1" /etc/kueue/metrics/certs
shift
exec "$@"
"""
"""Without certificates of its own making Kueue reads some from this fixed place, its metrics switched off or not: it
gets an /etc that nobody else sees."""


class Kueue:
    """One Kueue: ``with Kueue(cluster): ...``. Its webhooks go with it, its CRDs stay."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._program = binaries.tool("kueue")
        self._manifests = binaries.module(f"sigs.k8s.io/kueue@{binaries.KUEUE_VERSION}") / "config/components"
        self._folder = cluster.folder / "kueue"
        self._health, self._webhook = _free_port(), _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        # Under these names Kueue looks for what it serves its webhooks with.
        Authority(self._folder).issue("tls", user="kueue", hosts=("127.0.0.1",))
        crds = self._crds()
        self._cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=crds)
        self._cluster.kubectl("wait", "--for=condition=Established", "--filename=-", stdin=crds)
        self._start()
        self._cluster.kubectl("apply", "--filename=-", stdin=self._webhooks())
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._webhooks():
            self._cluster.kubectl("delete", hook["kind"], hook["metadata"]["name"], "--ignore-not-found")
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)

    def _start(self) -> None:
        config: Json = {
            "apiVersion": "config.kueue.x-k8s.io/v1beta2",
            "kind": "Configuration",
            "health": {"healthProbeBindAddress": f"127.0.0.1:{self._health}"},
            "metrics": {"bindAddress": "0"},
            "webhook": {"host": "127.0.0.1", "port": self._webhook, "certDir": str(self._folder)},
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": False},
            "clientConnection": {"qps": 500, "burst": 1000},
            "integrations": {"frameworks": ["batch/job"]},
        }
        (self._folder / "config.json").write_text(json.dumps(config))
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
        command += ["sh", "-ec", _WITH_CERTIFICATES, "sh", str(self._folder), str(self._program)]
        # The visibility server is an aggregated API, which would need a Service that leads to this process.
        gates = "VisibilityOnDemand=false,ElasticJobsViaWorkloadSlices=true"
        command += [f"--config={self._folder / 'config.json'}", f"--feature-gates={gates}"]
        environment = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": str(self._cluster.kubeconfig),
            "HOME": "/",
            "USER": "kueue",
        }
        with (self._folder / "kueue.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Kueue did not start:\n{(self._folder / 'kueue.log').read_text()[-4000:]}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/readyz", timeout=5):
                return True
        except OSError:
            return False

    def _led_here(self, path: str) -> Json:
        """Return how the API server calls a webhook of this process, in place of a Service."""
        authority = base64.b64encode((self._folder / "ca.crt").read_bytes()).decode()
        return {"url": f"https://127.0.0.1:{self._webhook}{path}", "caBundle": authority}

    def _crds(self) -> list[Json]:
        """Return Kueue's CRDs; of those that it converts between versions, with the webhook for that."""
        found = [yaml.safe_load(path.read_text()) for path in sorted((self._manifests / "crd/bases").glob("*.yaml"))]
        converted = {
            yaml.safe_load(path.read_text())["metadata"]["name"]
            for path in (self._manifests / "crd/patches").glob("webhook_in_*.yaml")
        }
        for crd in found:
            if crd["metadata"]["name"] in converted:
                webhook = {"clientConfig": self._led_here("/convert"), "conversionReviewVersions": ["v1"]}
                crd["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook}
        return found

    def _webhooks(self) -> list[Json]:
        """Return Kueue's own webhooks, led to this process."""
        found = []
        for manifest in yaml.safe_load_all((self._manifests / "webhook/manifests.yaml").read_text()):
            hooks = [hook for hook in manifest["webhooks"] if {*hook["rules"][0]["apiGroups"]} <= _GROUPS]
            for hook in hooks:
                hook["clientConfig"] = self._led_here(hook["clientConfig"]["service"]["path"])
            name = f"kueue-{manifest['metadata']['name']}"
            found.append({**manifest, "metadata": {"name": name}, "webhooks": hooks})
        return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
