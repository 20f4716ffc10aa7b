"""A real control plane on this machine: etcd, kube-apiserver, kube-controller-manager and kube-scheduler.

All listen on 127.0.0.1 only and die with the process that started them. Use ``ControlPlane(folder).start()``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.cluster import audit, binaries
from tests.cluster.config import Config
from tests.cluster.pki import Authority, write_kubeconfig

ADMINS = "system:masters"
SERVICE_RANGE = "10.96.0.0/16"
START_TIMEOUT = 120.0


class ControlPlaneError(RuntimeError):
    """A component did not start or died; the message has the end of its log."""


class ControlPlane:
    """The four processes, and the files that clients need, in ``folder``."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder = folder
        self.config = config
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.programs = binaries.find_or_build()
        self.kubectl = self.programs["kubectl"]
        self.kubeconfig = folder / "kubeconfig"
        self.authority = Authority(folder / "pki")
        self.etcd_port, self._peer_port, self.port = _free_ports(3)
        self.server = f"https://127.0.0.1:{self.port}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Return once the API server answers and the controllers work (about 5 s)."""
        ca = self.authority.certificate
        self.admin = self.authority.issue("admin", user="admin", group=ADMINS)
        write_kubeconfig(self.kubeconfig, self.server, ca, pair=self.admin)
        self._spawn("etcd", self._etcd_flags())
        self._spawn("kube-apiserver", self._apiserver_flags())
        self._wait("/readyz", "kube-apiserver")
        pauses = {"JOB_SYNC_PERIOD": self.config.job_sync_period, "JOB_POD_BACKOFF": self.config.job_pod_backoff}
        self._spawn(
            "kube-controller-manager",
            self._controller_manager_flags(),
            {name: f"{seconds}s" for name, seconds in pauses.items()},
        )
        self._spawn("kube-scheduler", self._scheduler_flags())
        # The ServiceAccount of the first namespace is the controllers' first visible work.
        self._wait("/api/v1/namespaces/default/serviceaccounts/default", "kube-controller-manager")

    def stop(self) -> None:
        """Stop in the reverse order, so that no component waits for one that is gone."""
        all_live = all(process.poll() is None for process in self._processes.values())
        for process in reversed(self._processes.values()):
            process.send_signal(signal.SIGTERM if all_live else signal.SIGKILL)
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._processes.items()}

    def check(self) -> None:
        """Raise ControlPlaneError if a component has died."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                log = self.logs / f"{name}.log"
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
                raise ControlPlaneError(f"{name} ended with {process.returncode}; the end of {log}:\n{tail}")

    def _spawn(self, name: str, flags: dict[str, object], environment: dict[str, str] | None = None) -> None:
        arguments = [f"--{flag}={value}" for flag, value in flags.items()]
        # setpriv: no component outlives this process, however it ends.
        command = ["setpriv", "--pdeathsig", "KILL", str(self.programs[name]), *arguments]
        with (self.logs / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command,
                env=os.environ | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait(self, path: str, component: str) -> None:
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        context.load_cert_chain(self.admin.certificate, self.admin.key)
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            self.check()
            try:
                urllib.request.urlopen(self.server + path, context=context, timeout=5).close()
            except (urllib.error.URLError, OSError) as error:
                if time.monotonic() > deadline:
                    log = self.logs / f"{component}.log"
                    raise ControlPlaneError(
                        f"{component} is not ready after {START_TIMEOUT:.0f} s ({path}: {error}); see {log}"
                    ) from None
            else:
                return
            time.sleep(0.05)

    def _etcd_flags(self) -> dict[str, object]:
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        (self.folder / "etcd-server").write_text(client)
        return {
            "data-dir": self.folder / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "unsafe-no-fsync": "true",  # the data need not survive a power cut
            "quota-backend-bytes": 8 * 1024**3,
            "log-level": "warn",
        }

    def _apiserver_flags(self) -> dict[str, object]:
        serving = self.authority.issue("apiserver", user="kube-apiserver", hosts=("127.0.0.1", "localhost"))
        kubelet = self.authority.issue("apiserver-kubelet-client", user="kube-apiserver", group=ADMINS)
        self._token_key = self.authority.signing_key("service-account")
        return {
            "etcd-servers": f"http://127.0.0.1:{self.etcd_port}",
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "endpoint-reconciler-type": "none",  # a loopback address may not be an endpoint
            "secure-port": self.port,
            "tls-cert-file": serving.certificate,
            "tls-private-key-file": serving.key,
            "client-ca-file": self.authority.certificate,
            "authorization-mode": "Node,RBAC",
            "service-cluster-ip-range": SERVICE_RANGE,
            "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
            "service-account-key-file": self._token_key,
            "service-account-signing-key-file": self._token_key,
            "kubelet-client-certificate": kubelet.certificate,
            "kubelet-client-key": kubelet.key,
            "kubelet-preferred-address-types": "InternalIP",
            "default-not-ready-toleration-seconds": self.config.eviction_after,
            "default-unreachable-toleration-seconds": self.config.eviction_after,
            "max-requests-inflight": 3000,
            "max-mutating-requests-inflight": 1000,
            "allow-privileged": "true",
            "profiling": "false",
            **({"runtime-config": ",".join(f"{api}=true" for api in self.config.apis)} if self.config.apis else {}),
            **self._features(),
            **(audit.flags(self.folder) if self.config.audit else {}),
        }

    def _controller_manager_flags(self) -> dict[str, object]:
        # Endpoint controllers are off: the pods' addresses are loopback ones, which EndpointSlices refuse.
        off = ("endpoints-controller", "endpointslice-controller", "endpointslice-mirroring-controller")
        return {
            "kubeconfig": self._component_kubeconfig("kube-controller-manager"),
            "controllers": ",".join([*self.config.controllers, *(f"-{name}" for name in off)]),
            "use-service-account-credentials": "true",
            "service-account-private-key-file": self._token_key,
            "root-ca-file": self.authority.certificate,
            "concurrent-job-syncs": 20,
            "pvclaimbinder-sync-period": "1s",  # a claim that comes before its volume is known waits so long
            # A quota that is older than the controller's knowledge of the resource is looked at again so often (5m).
            "resource-quota-sync-period": "5s",
            "kube-api-qps": 5000,
            "kube-api-burst": 10000,
            "node-monitor-grace-period": f"{self.config.node_grace}s",
            "node-monitor-period": "1s",
            "node-eviction-rate": 100,
            "secondary-node-eviction-rate": 100,
            "leader-elect": "false",
            "secure-port": 0,
            "profiling": "false",
            **self._features(),
        }

    def _scheduler_flags(self) -> dict[str, object]:
        config = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {
                "kubeconfig": str(self._component_kubeconfig("kube-scheduler")),
                "qps": 5000,
                "burst": 10000,
            },
            "leaderElection": {"leaderElect": False},
            "podMaxBackoffSeconds": 1,
        }
        path = self.folder / "kube-scheduler.json"
        path.write_text(json.dumps(config, indent=2))
        return {"config": path, "secure-port": 0, **self._features()}

    def _features(self) -> dict[str, object]:
        switched = ",".join(f"{feature}=true" for feature in self.config.features)
        return {"feature-gates": switched} if switched else {}

    def _component_kubeconfig(self, name: str) -> Path:
        pair = self.authority.issue(name, user=f"system:{name}")
        path = self.folder / "pki" / f"{name}.kubeconfig"
        return write_kubeconfig(path, self.server, self.authority.certificate, pair=pair)


def check_host() -> None:
    """Raise ControlPlaneError if a command that the cluster needs is missing."""
    missing = [name for name in ("setpriv", "unshare", "nsenter", "mount") if not shutil.which(name)]
    if missing:
        raise ControlPlaneError(f"the test cluster needs {', '.join(missing)}: install util-linux (Linux only)")


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; taken together, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
