"""The cluster as a test or a command line sees it: start and stop it, talk to it, cause faults."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cluster import audit, binaries
from tests.cluster.api import Api
from tests.cluster.config import Config
from tests.cluster.controlplane import check_host
from tests.cluster.pki import write_kubeconfig

Json = dict[str, Any]

REPOSITORY = Path(__file__).parents[2]
START_TIMEOUT = 180.0
STOP_TIMEOUT = 20.0


class ClusterError(RuntimeError):
    """The cluster did not start, or did not do what it was asked."""


class NodeHandle:
    """One node, to cause faults on."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self.name = name

    def kill(self) -> None:
        """Cut its power: all its processes are gone, its heartbeat stops, nothing is reported."""
        self._cluster.control("kill_node", node=self.name)

    def start(self) -> None:
        """Bring it back."""
        self._cluster.control("start_node", node=self.name)

    def is_ready(self) -> bool:
        node = self._cluster.get(f"/api/v1/nodes/{self.name}")
        return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])


class Cluster:
    """A control plane and nodes: ``with Cluster(Config(nodes=2)) as cluster: cluster.kubectl("get", "nodes")``.

    ``folder`` holds the state and is emptied at the start; without one a temporary folder is used and removed
    at the end. The cluster dies with the thread that started it, unless ``detached``.
    """

    def __init__(self, config: Config | None = None, *, folder: Path | None = None, detached: bool = False) -> None:
        self.config = config or Config()
        self._temporary = folder is None
        self.folder = (folder or Path(tempfile.mkdtemp(prefix="unfreeze-cluster-"))).absolute()
        self.kubeconfig = self.folder / "kubeconfig"
        self.logs = self.folder / "logs"
        self.nodes = [NodeHandle(self, f"node-{number}") for number in range(self.config.nodes)]
        self._detached = detached
        self._server: subprocess.Popen[bytes] | None = None
        self._connections = threading.local()

    @classmethod
    def attach(cls, folder: Path) -> Cluster:
        """Return a running cluster that somebody else has started, and will stop, in ``folder``."""
        config = Config.from_json(json.loads((folder / "config.json").read_text()))
        return cls(config, folder=folder, detached=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything and return when the nodes are Ready; raises ClusterError."""
        check_host()
        if os.geteuid() != 0:
            raise ClusterError("the test cluster makes mount namespaces: run it as root (sudo -E)")
        if len(str(self.folder)) > 90:
            raise ClusterError(f"{self.folder}: too long a path for a socket in it; choose a shorter folder")
        kubectl = binaries.find_or_build()["kubectl"]
        self._empty_folder()
        self.logs.mkdir(parents=True)
        self.folder.chmod(0o700)
        (self.folder / "bin").mkdir()
        (self.folder / "bin" / "kubectl").symlink_to(kubectl)
        (self.folder / "config.json").write_text(json.dumps(self.config.to_json(), indent=2))
        bind_to_parent = [] if self._detached else ["setpriv", "--pdeathsig", "KILL"]
        # "slave": what the host mounts later is seen inside, what is mounted inside is not seen outside.
        command = [*bind_to_parent, "unshare", "--mount", "--propagation", "slave"]
        command += [sys.executable, "-m", "tests.cluster.server", str(self.folder)]
        with (self.logs / "cluster.log").open("wb") as log:
            self._server = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready(self._server)
        except BaseException:
            self.stop(keep_folder=True)
            raise

    def stop(self, *, keep_folder: bool = False) -> None:
        """Stop everything; harmless when nothing runs."""
        if self._server:
            self._server.terminate()
            try:
                self._server.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
            self._server = None
        self._connections = threading.local()
        if self._temporary and not keep_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def wait_until_down(self, timeout: float = STOP_TIMEOUT) -> None:
        """Wait until the cluster has ended by itself, as it does when a component dies."""
        if self._server:
            self._server.wait(timeout)

    # -- access ----------------------------------------------------------------------------------------------

    @property
    def server(self) -> str:
        """The API server's address."""
        return self._connection()[0]

    @property
    def etcd(self) -> str:
        """The address of etcd, for objects by the thousand."""
        return (self.folder / "etcd-server").read_text()

    def kubectl(self, *arguments: str, stdin: str | Json | list[Json] = "", check: bool = True) -> str:
        """Run kubectl as the administrator and return its output; manifests may be given as dicts."""
        if isinstance(stdin, list):
            stdin = {"apiVersion": "v1", "kind": "List", "items": stdin}
        text = stdin if isinstance(stdin, str) else json.dumps(stdin)
        return self._run(self.folder / "bin" / "kubectl", arguments, text, check=check)

    def helm(self, *arguments: str, values: Json | None = None, program: str = "helm") -> str:
        """Run helm, or helm3, as the administrator and return its output; values go to its standard input."""
        values_file = ("--values", "-") if values is not None else ()
        return self._run(binaries.tool(program), (*arguments, *values_file), json.dumps(values))

    def _run(self, program: Path, arguments: tuple[str, ...], stdin: str, *, check: bool = True) -> str:
        command = [str(program), "--kubeconfig", str(self.kubeconfig), *arguments]
        result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if check and result.returncode != 0:
            raise ClusterError(f"{program.name} {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def request(self, method: str, path: str, body: Json | None = None, *, token: str = "") -> tuple[int, Json]:
        """Send a request as the administrator, or with a token; returns status and answer."""
        headers = {"Content-Type": "application/json"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body)
        connection = self._kept(anonymous=bool(token))
        fresh = connection.sock is None
        try:
            try:
                connection.request(method, path, data, headers)
                response = connection.getresponse()
            except (ConnectionError, ssl.SSLError):
                connection.close()
                if fresh:
                    raise
                connection.request(method, path, data, headers)  # the server had ended the one that was kept
                response = connection.getresponse()
            content = response.read() or b"{}"
            # What the server does not know at all it answers in words; its type of content is not to be relied on.
            return response.status, json.loads(content) if content[:1] == b"{" else {"message": content.decode()}
        except BaseException:
            connection.close()  # half an answer may be left in it
            raise

    def get(self, path: str) -> Json:
        """Read an object or a list; raises ClusterError if there is none."""
        status, answer = self.request("GET", path)
        if status != 200:
            raise ClusterError(f"GET {path}: {status} {answer.get('message', '')}")
        return answer

    def create(self, path: str, body: Json) -> Json:
        status, answer = self.request("POST", path, body)
        if status not in (200, 201):
            raise ClusterError(f"POST {path}: {status} {answer.get('message', '')}")
        return answer

    def wait_for(self, path: str, condition: Callable[[Json], Any], *, timeout: float = 120, what: str = "") -> Json:
        """Read an object until ``condition`` holds and return it; {} stands for one that is absent."""
        deadline = time.monotonic() + timeout
        waits = pauses()
        while True:
            status, answer = self.request("GET", path)
            answer = answer if status == 200 else {}
            if condition(answer):
                return answer
            if time.monotonic() > deadline:
                state = json.dumps(answer.get("status", answer), indent=1)
                raise ClusterError(f"{path}: not {what or 'as awaited'} after {timeout:g} s:\n{state[:4000]}")
            time.sleep(next(waits))

    def service_account_token(self, namespace: str, name: str, seconds: int = 3600) -> str:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        answer = self.create(path, {"spec": {"expirationSeconds": seconds}})
        return str(answer["status"]["token"])

    def service_account_kubeconfig(self, namespace: str, name: str, path: Path | None = None) -> Path:
        """Write a kubeconfig with exactly the rights of a ServiceAccount and return its path."""
        path = path or self.folder / f"{namespace}.{name}.kubeconfig"
        token = self.service_account_token(namespace, name, 24 * 3600)
        return write_kubeconfig(path, self.server, self.folder / "pki" / "ca.crt", token=token)

    def client(self) -> Api:
        """Return an asynchronous client with the administrator's rights; to be closed."""
        return Api(self.server, self._connection()[1])

    def mark(self) -> int:
        """Return the present end of the log of writes (see `Config.audit`)."""
        return audit.mark(self.folder)

    def writes(self, since: int = 0) -> list[audit.Write]:
        """Return what was written, or was to be, after a mark."""
        return audit.read(self.folder, since)

    # -- faults ----------------------------------------------------------------------------------------------

    def kill_out_of_memory(self, namespace: str, pod: str, container: str) -> None:
        """Kill a container as the kernel does when its memory limit is exceeded."""
        self.control("kill_out_of_memory", namespace=namespace, pod=pod, container=container)

    def processes(self, namespace: str, pod: str) -> list[int]:
        """Return the PIDs of the main processes of a pod's running containers, on this machine."""
        pids: list[int] = self.control("processes", namespace=namespace, pod=pod)
        return pids

    def control(self, do: str, **arguments: Any) -> Any:
        """Send a command to the cluster's process (see server.Control)."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.folder / "control.sock"))
            connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            answer = json.loads(connection.makefile().readline())
        if "error" in answer:
            raise ClusterError(f"{do}: {answer['error']}")
        return answer["result"]

    # -- internal --------------------------------------------------------------------------------------------

    def _empty_folder(self) -> None:
        if running(self.folder) is not None:
            raise ClusterError(f"a cluster is running in {self.folder}: stop it first, or choose another folder")
        if self.folder.exists():
            if any(self.folder.iterdir()) and not (self.folder / "config.json").exists():
                raise ClusterError(f"{self.folder} is not empty and no cluster's folder: choose another")
            shutil.rmtree(self.folder)

    def _wait_until_ready(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not (self.folder / "ready").exists():
            if server.poll() is not None or time.monotonic() > deadline:
                failed = self.folder / "failed"
                reason = failed.read_text() if failed.exists() else f"see {self.logs / 'cluster.log'}"
                raise ClusterError(f"the cluster did not start: {reason}")
            time.sleep(0.05)

    def _kept(self, *, anonymous: bool) -> http.client.HTTPSConnection:
        """Return this thread's connection, as the administrator or as nobody: a handshake costs more than a request."""
        name = "anonymous" if anonymous else "admin"
        if not hasattr(self._connections, name):
            server, admin, nobody = self._connection()
            host = server.removeprefix("https://")
            context = nobody if anonymous else admin
            setattr(self._connections, name, http.client.HTTPSConnection(host, context=context, timeout=120))
        connection: http.client.HTTPSConnection = getattr(self._connections, name)
        return connection

    def _connection(self) -> tuple[str, ssl.SSLContext, ssl.SSLContext]:
        """Return address, context with the administrator's certificate and one without, made once."""
        if not hasattr(self, "_cached"):
            pki = self.folder / "pki"
            text = self.kubeconfig.read_text()
            server = next(word for word in text.split() if word.startswith("https://"))
            anonymous = ssl.create_default_context(cafile=str(pki / "ca.crt"))
            admin = ssl.create_default_context(cafile=str(pki / "ca.crt"))
            admin.load_cert_chain(pki / "admin.crt", pki / "admin.key")
            self._cached = (server, admin, anonymous)
        return self._cached


def pauses() -> Iterator[float]:
    """Yield seconds between looks at what is waited for, for ever: ever more, so that a long wait costs little."""
    pause = 0.05
    while True:
        yield pause
        pause = min(0.5, 1.1 * pause)


def running(folder: Path) -> int | None:
    """Return the PID of the folder's cluster if that process is alive and still the same program."""
    try:
        pid = int((folder / "server.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (OSError, ValueError):
        return None
    return pid if str(folder) in command else None
