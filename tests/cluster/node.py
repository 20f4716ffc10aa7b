"""A Node of the cluster: registers itself, sends heartbeats and runs the pods that are bound to it."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import random
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cluster import binaries
from tests.cluster.api import Api, ApiError, Store
from tests.cluster.config import Config
from tests.cluster.container import Container, now
from tests.cluster.hosts import HostsFiles
from tests.cluster.image_store import ImageStore
from tests.cluster.kubelet_api import PORT, KubeletApi
from tests.cluster.pod import PodRunner
from tests.cluster.provisioner import Provisioner

Json = dict[str, Any]

VERSION = f"{binaries.KUBERNETES_VERSION}-process"


class Machine:
    """What the nodes of one machine share: the client, the view of all pods, the addresses."""

    def __init__(self, api: Api, config: Config, folder: Path, rootfs: Path, serving: ssl.SSLContext) -> None:
        self.api = api
        self.config = config
        self.folder = folder
        self.rootfs = rootfs
        self.nodes: dict[str, Node] = {}
        self.pods = Store(api, "/api/v1/pods", self._pod_changed)
        self.services = Store(api, "/api/v1/services", self._service_changed)
        self.hosts = HostsFiles(self.pods, self.services)
        self.serving = serving
        self._tasks: list[asyncio.Future[None]] = []

    async def start(self) -> None:
        """Start the configured nodes."""
        provisioner = Provisioner(self.api, self.folder / "volumes")
        runs = (self.pods.run(), self.services.run(), self.hosts.run(), provisioner.run())
        self._tasks = [asyncio.ensure_future(run) for run in runs]
        await asyncio.gather(self.pods.synced.wait(), self.services.synced.wait())
        await self._take_addresses()
        await asyncio.gather(*(node.start() for node in self.nodes.values()))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(node.kill() for node in self.nodes.values()))

    def next_address(self) -> str:
        """Return a loopback address that no pod of this cluster has used for a long time."""
        return next(self._addresses)

    async def _take_addresses(self) -> None:
        """Take a free 127.x.0.0/16: other clusters on this machine hold the others' node addresses."""
        for octet in random.sample(range(64, 250), 186):
            self.nodes = {
                name: Node(self, name, f"127.{octet}.255.{number}")
                for number, name in enumerate((f"node-{n}" for n in range(self.config.nodes)), start=1)
            }
            started = []
            try:
                for node in self.nodes.values():
                    await node.kubelet.start()
                    started.append(node)
            except OSError:
                for node in started:
                    await node.kubelet.stop()
                continue
            self._addresses = _addresses(octet)
            return
        raise OSError(f"no free loopback network for the nodes: port {PORT} is taken in every one")

    def _service_changed(self, _kind: str, _service: Json) -> None:
        self.hosts.changed()

    def _pod_changed(self, kind: str, pod: Json) -> None:
        self.hosts.changed()
        node = self.nodes.get(pod["spec"].get("nodeName", ""))
        if node:
            node.pod_changed(kind, pod)


class Node:
    """One Node object and its pods."""

    def __init__(self, machine: Machine, name: str, ip: str) -> None:
        self.machine = machine
        self.name = name
        self.ip = ip
        self.api = machine.api
        self.config = machine.config
        self.folder = machine.folder
        self.rootfs = machine.rootfs
        self.hosts = machine.hosts
        self.images = ImageStore(machine.folder / "images" / name, machine.config.registries)
        self.server_port = int(machine.api.server.rpartition(":")[2])
        self.kubelet = KubeletApi(self, machine.serving)
        self.runners: dict[str, PodRunner] = {}
        self.alive = False
        self._heart: asyncio.Future[None] | None = None
        self._removals: set[asyncio.Future[None]] = set()

    async def start(self) -> None:
        """Register, or come back after `kill`; containers that ran before are lost."""
        if self.alive:
            return
        await self._register()
        if not self.kubelet.running:
            await self.kubelet.start()
        self.alive = True
        self._heart = asyncio.ensure_future(self._heartbeat())
        for pod in list(self.machine.pods.items.values()):
            if pod["spec"].get("nodeName") == self.name:
                self.pod_changed("MODIFIED", pod)

    async def kill(self) -> None:
        """Die at once, as by a power cut: every process ends and nothing is reported any more."""
        self.alive = False
        if self._heart:
            self._heart.cancel()
        dead, self.runners = self.runners, {}
        for runner in dead.values():
            self.hosts.remove(runner)
        await asyncio.gather(self.kubelet.stop(), *(runner.abandon() for runner in dead.values()))

    def pod_changed(self, kind: str, pod: Json) -> None:
        """Start, end or forget a pod, as its object says."""
        if not self.alive:
            return
        uid = pod["metadata"]["uid"]
        runner = self.runners.get(uid)
        if kind == "DELETED":
            if runner:
                del self.runners[uid]
                self.hosts.remove(runner)
                removal = asyncio.ensure_future(runner.remove())
                self._removals.add(removal)
                removal.add_done_callback(self._removals.discard)
            return
        deleted = "deletionTimestamp" in pod["metadata"]
        if runner is None:
            if not deleted and pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
                return
            runner = self.runners[uid] = PodRunner(self, pod, self.machine.next_address())
            if deleted:
                runner.terminate(0)
            runner.start()
        elif deleted:
            runner.terminate(pod["metadata"].get("deletionGracePeriodSeconds", 0))

    def find_container(self, namespace: str, pod: str, container: str) -> Container | None:
        for runner in self.runners.values():
            meta = runner.pod["metadata"]
            if (meta["namespace"], meta["name"]) == (namespace, pod):
                return next((c for c in runner.containers if c.name == container), None)
        return None

    def log(self, line: str) -> None:
        print(f"{now()} {self.name}: {line}", file=sys.stderr, flush=True)

    async def _register(self) -> None:
        resources = self.config.capacity | self.config.resources
        status: Json = {
            "capacity": resources,
            "allocatable": resources,
            "addresses": [
                {"type": "InternalIP", "address": self.ip},
                {"type": "Hostname", "address": self.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": PORT}},
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": "",
                "containerRuntimeVersion": "process://1",
                "kernelVersion": "",
                "kubeProxyVersion": "",
                "kubeletVersion": VERSION,
                "machineID": self.name,
                "operatingSystem": "linux",
                "osImage": "a local process",
                "systemUUID": self.name,
            },
            "conditions": [_ready_condition()],
        }
        labels = {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name, "labels": labels}}
        try:
            await self.api.post("/api/v1/nodes", body | {"status": status})
        except ApiError as error:
            if error.status != 409:
                raise
            await self.api.patch(f"/api/v1/nodes/{self.name}/status", {"status": status})

    async def _heartbeat(self) -> None:
        """Renew the Lease; a node is NotReady when it has not done so for the grace period."""
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        period = self.config.node_grace / 4
        while True:
            try:
                try:
                    await self.api.patch(f"{path}/{self.name}", {"spec": self._lease()})
                except ApiError as error:
                    if error.status != 404:
                        raise
                    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
                    await self.api.post(path, lease | {"metadata": {"name": self.name}, "spec": self._lease()})
            except Exception as error:  # noqa: BLE001 - a node whose heart stops is dead for all tests after this one
                self.log(f"lease: {error!r}")
            await asyncio.sleep(period)

    def _lease(self) -> Json:
        time = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        seconds = max(1, round(self.config.node_grace))
        return {"holderIdentity": self.name, "leaseDurationSeconds": seconds, "renewTime": time}


def _ready_condition() -> Json:
    return {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "the node runs pods as local processes",
        "lastHeartbeatTime": now(),
        "lastTransitionTime": now(),
    }


def _addresses(octet: int) -> Iterator[str]:
    """Yield the pods' addresses of 127.octet.0.0/16 in order, over and over; 255 is the nodes'."""
    for number in itertools.cycle(range(1, 255 * 256)):
        high, low = divmod(number, 256)
        if low not in (0, 255):
            yield f"127.{octet}.{high}.{low}"
