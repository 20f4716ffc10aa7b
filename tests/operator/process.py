"""The operator as a process of its own, under its ServiceAccount: start, stop, kill, ask. Also for chaos tests."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster
from tests.operator import nursery

Process = subprocess.Popen[bytes] | nursery.Forked

IMAGE = "fake-trainer:test"
START_SECONDS = 120
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/finetunejobs.unfreeze.dev"


class OperatorProcess:
    """One operator; `log` keeps the lines of all its lives."""

    def __init__(
        self, kubeconfig: Path, folder: Path, namespaces: tuple[str, ...] = (), options: tuple[str, ...] = ()
    ) -> None:
        self.kubeconfig = kubeconfig
        self.log = folder / "operator.log"
        self.namespaces = namespaces
        self.options = options
        self._process: Process | None = None
        self._port = 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def launch(self) -> None:
        """Start it without waiting for anything."""
        self._port = free_port()
        arguments = [
            f"--http-port={self._port}",
            "--http-host=127.0.0.1",
            f"--trainer-image={IMAGE}",
            "--progress-interval=0.2",
            "--status-interval=0.2",
            "--lost-pod-grace=1",
        ]
        arguments += [f"--namespace={namespace}" for namespace in self.namespaces] + [*self.options]
        environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(self.kubeconfig), "HOME": "/nonexistent"}
        self._process = self._spawn(arguments, environment)

    def _spawn(self, arguments: list[str], environment: dict[str, str]) -> Process:
        command = [sys.executable, "-m", "unfreeze_operator.main", *arguments]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def start(self, seconds: float = START_SECONDS) -> None:
        """Start it and wait until it is ready, so long."""
        self.launch()
        deadline = time.monotonic() + seconds
        while self.get("/readyz")[0] != 200:
            if self._process is None or self._process.poll() is not None:
                raise AssertionError(f"the operator ended:\n{self.log.read_text()[-4000:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"the operator is not ready:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)

    def stop(self) -> int:
        """Ask it to end and return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it as a lost node or the OOM killer would."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(60)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def get(self, path: str) -> tuple[int, str]:
        """Ask its HTTP server; status 0 when it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""

    def metric(self, sample: str) -> float | None:
        """Return one sample of /metrics by name and labels as they are printed."""
        for line in self.get("/metrics")[1].splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return None

    def memory_mib(self, field: str = "VmRSS") -> float:
        """Return the memory that is resident now, or with VmHWM the most that ever was."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(field))

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used."""
        return processor_seconds(self.pid)

    def loaded(self, library: str) -> bool:
        """Whether a shared library of this name is mapped."""
        return library in Path(f"/proc/{self.pid}/maps").read_text()

    def lines(self) -> list[dict[str, Any]]:
        """Return its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


class ForkedOperator(OperatorProcess):
    """As that, without the second that it takes to read its modules."""

    def _spawn(self, arguments: list[str], environment: dict[str, str]) -> Process:
        return nursery.spawn(arguments, environment, self.log)


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def established(crd: dict[str, Any]) -> bool:
    """Whether the API server serves a CRD."""
    conditions = crd.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def install(cluster: Cluster, repository: Path) -> Path:
    """Install CRD, namespace and RBAC; return a kubeconfig of the operator's ServiceAccount."""
    crd = repository / "crds/unfreeze.dev_finetunejobs.yaml"
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(crd))  # tests before may have made it
    cluster.wait_for(CRD, established, what="established")
    for name in ("base/namespace", "base/rbac", "leader-election/leases"):
        cluster.kubectl("apply", "-f", str(repository / f"operator/deploy/{name}.yaml"))
    return cluster.service_account_kubeconfig("unfreeze-system", "unfreeze-operator")
