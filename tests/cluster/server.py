"""The process that is the cluster: starts the control plane, hosts the nodes, obeys a control socket.

Started by `Cluster` as ``python -m tests.cluster.server FOLDER`` in a mount namespace of its own, so that no
mount of a pod is ever seen, or left behind, outside. Writes ``ready`` into the folder when the nodes are Ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.cluster.api import Api
from tests.cluster.config import Config
from tests.cluster.controlplane import ControlPlane, ControlPlaneError
from tests.cluster.node import Machine, Node

Json = dict[str, Any]

CHECK_SECONDS = 0.5


async def serve(folder: Path) -> None:
    """Run until SIGTERM or SIGINT, or until a component dies."""
    config = Config.from_json(json.loads((folder / "config.json").read_text()))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    plane = ControlPlane(folder, config)
    try:
        plane.start()
        api = Api(plane.server, _client_context(plane))
        machine = Machine(api, config, folder, _rootfs(folder), _server_context(plane))
        control = await asyncio.start_unix_server(Control(machine).answer, folder / "control.sock")
        try:
            await machine.start()
            await _nodes_ready(machine)
            aside = folder / "ready.new"  # who sees the file reads it
            aside.write_text("".join(f"{pid}\t{name}\n" for name, pid in plane.pids().items()))
            aside.rename(folder / "ready")
            while not stop.is_set():
                plane.check()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(stop.wait(), CHECK_SECONDS)
        finally:
            control.close()
            await machine.stop()
            await api.close()
    finally:
        plane.stop()


class Control:
    """Faults and questions, one JSON line each way: {"do": "kill_node", "node": "node-0"}."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline())
            action = getattr(self, "do_" + request.pop("do"))
            answer = {"result": await action(**request)}
        except Exception as error:  # noqa: BLE001 - the caller is told
            answer = {"error": f"{type(error).__name__}: {error}"}
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()

    async def do_kill_node(self, node: str) -> None:
        await self._node(node).kill()

    async def do_start_node(self, node: str) -> None:
        await self._node(node).start()

    async def do_kill_out_of_memory(self, namespace: str, pod: str, container: str) -> None:
        for node in self._machine.nodes.values():
            found = node.find_container(namespace, pod, container)
            if found:
                return found.kill_out_of_memory()
        raise ValueError(f"no node runs container {container} of pod {namespace}/{pod}")

    async def do_processes(self, namespace: str, pod: str) -> list[int]:
        """Return the PIDs of the main processes of a pod's running containers."""
        return [
            container.process.pid
            for node in self._machine.nodes.values()
            for runner in node.runners.values()
            if (runner.pod["metadata"]["namespace"], runner.pod["metadata"]["name"]) == (namespace, pod)
            for container in runner.containers
            if container.process
        ]

    def _node(self, name: str) -> Node:
        if name not in self._machine.nodes:
            raise ValueError(f"no node {name}, only {', '.join(self._machine.nodes)}")
        return self._machine.nodes[name]


async def _nodes_ready(machine: Machine) -> None:
    """Wait until pods can be scheduled: the controllers have taken the taint off every node."""
    for name in machine.nodes:
        while True:
            node = await machine.api.get(f"/api/v1/nodes/{name}")
            if not node["spec"].get("taints"):
                break
            await asyncio.sleep(0.05)


def _rootfs(folder: Path) -> Path:
    """Return a folder in memory for the containers' own layers of the file system (see container_init.py).

    In memory, because an overlay may not write into a part of what it covers, and it covers the whole disk.
    """
    rootfs = folder / "rootfs"
    rootfs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", rootfs], check=True)
    return rootfs


def _client_context(plane: ControlPlane) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(plane.authority.certificate))
    context.load_cert_chain(plane.admin.certificate, plane.admin.key)
    return context


def _server_context(plane: ControlPlane) -> ssl.SSLContext:
    """The kubelet API talks to the holders of the cluster's certificates only."""
    pair = plane.authority.issue("kubelet", user="kubelet", hosts=("localhost",))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(plane.authority.certificate))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def main() -> int:
    folder = Path(sys.argv[1])
    (folder / "server.pid").write_text(str(os.getpid()))
    try:
        asyncio.run(serve(folder))
    except Exception as error:  # noqa: BLE001 - whoever started this process is told
        (folder / "failed").write_text(str(error))
        if not isinstance(error, ControlPlaneError):
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
