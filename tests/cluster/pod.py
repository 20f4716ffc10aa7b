"""One pod on a node: mounts its volumes, runs its containers in order and reports its status."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.cluster import status
from tests.cluster.api import ApiError, pod_path
from tests.cluster.container import Container, now
from tests.cluster.volumes import VolumeError, Volumes, read_data

if TYPE_CHECKING:
    from tests.cluster.node import Node

Json = dict[str, Any]

RETRY_SECONDS = 1.0


class PodRunner:
    """Runs a pod from its binding to its removal.

    A runner that only reports and runs nothing would take this class's place in `Node.pod_changed`: `start`,
    `terminate`, `abandon`, `remove`, ``pod``, ``uid`` and ``containers`` are all that a node uses.
    """

    def __init__(self, node: Node, pod: Json, ip: str) -> None:
        self.node = node
        self.pod = pod
        self.ip = ip
        meta, spec = pod["metadata"], pod["spec"]
        self.uid: str = meta["uid"]
        self.full_name = f"{meta['name']}_{meta['namespace']}({self.uid})"
        self.hostname: str = spec.get("hostname") or meta["name"][:63].rstrip("-.")
        self.restart_policy: str = spec.get("restartPolicy", "Always")
        self.grace: float = spec.get("terminationGracePeriodSeconds", 30)
        self.has_init = bool(spec.get("initContainers"))
        self.folder: Path = node.folder / "pods" / f"{meta['namespace']}_{meta['name']}_{self.uid}"
        self.volumes = Volumes(node.api, pod, self.folder / "volumes", node.images, self.tell)
        self._set_address()
        before = pod.get("status", {})
        self.inits = self._containers("initContainers", before.get("initContainerStatuses", []), init=True)
        self.main = self._containers("containers", before.get("containerStatuses", []))
        self._started_at = before.get("startTime") or now()
        self._mounted = self._finished = self._deleting = False
        self._failure: dict[str, str] = {}
        self._conditions: list[Json] = before.get("conditions", [])
        self._stopped = asyncio.Event()
        self._dirty = asyncio.Event()
        self._warned: set[tuple[str, str]] = set()
        self._tasks: list[asyncio.Future[None]] = []
        self._sidecars: dict[Container, asyncio.Future[None]] = {}

    @property
    def containers(self) -> list[Container]:
        return [*self.inits, *self.main]

    def start(self) -> None:
        self._tasks = [asyncio.ensure_future(self.run()), asyncio.ensure_future(self._report())]

    async def run(self) -> None:
        """Run the pod to its end."""
        deadline = self.pod["spec"].get("activeDeadlineSeconds")
        if deadline:
            self._tasks.append(asyncio.ensure_future(self._enforce_deadline(deadline)))
        await self._mount_volumes()
        if self._mounted and await self._run_inits():
            self.changed()
            await asyncio.gather(*(container.run() for container in self.main))
        await self._end_sidecars()
        status.settle(self.containers, now())
        self._finished = True
        self.changed()

    def terminate(self, grace: float) -> None:
        """The pod is being deleted: end its containers, then report and delete it for good."""
        self._deleting = True
        self._stop(grace)
        self.changed()

    async def abandon(self) -> None:
        """Kill everything and report nothing: the node is dead, or the pod's object is gone already."""
        for task in (*self._tasks, *self._sidecars.values()):
            task.cancel()
        for container in self.containers:
            container.kill()
        for container in self.containers:
            if container.process:
                await container.process.wait()

    async def remove(self) -> None:
        """Free what the pod holds on this machine."""
        await self.abandon()
        self.volumes.remove()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    def changed(self) -> None:
        """Let the status be reported soon; many changes at once become one request."""
        self._dirty.set()

    def warn(self, reason: str, message: str) -> None:
        """Emit a warning event, once for each text."""
        if (reason, message) not in self._warned:
            self._warned.add((reason, message))
            self._tasks.append(asyncio.ensure_future(self._emit("Warning", reason, message)))

    def tell(self, reason: str, message: str) -> None:
        """Emit an event that warns of nothing."""
        self._tasks.append(asyncio.ensure_future(self._emit("Normal", reason, message)))

    def base_env(self) -> dict[str, str]:
        """Return what a kubelet puts into every container."""
        return {
            "HOSTNAME": self.hostname,
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.node.server_port),
            "KUBERNETES_SERVICE_PORT_HTTPS": str(self.node.server_port),
        }

    def file_mounts(self) -> list[Json]:
        """Return the mounts of the files that give the pod its name and its view of other pods' names."""
        (self.folder / "hostname").write_text(self.hostname + "\n")
        resolver = Path("/etc/resolv.conf")
        (self.folder / "resolv.conf").write_text(resolver.read_text() if resolver.exists() else "")
        names = ("hosts", "hostname", "resolv.conf")
        return [{"source": str(self.folder / name), "target": f"/etc/{name}", "readOnly": False} for name in names]

    async def read_data(self, kind: str, name: str) -> dict[str, bytes] | None:
        return await read_data(self.node.api, self.pod["metadata"]["namespace"], kind, name)

    def _set_address(self) -> None:
        """Put the addresses into the pod, where field references find them."""
        own = self.pod["status"] = dict(self.pod.get("status", {}))
        own |= {"podIP": self.ip, "podIPs": [{"ip": self.ip}]}
        own |= {"hostIP": self.node.ip, "hostIPs": [{"ip": self.node.ip}]}

    def _containers(self, kind: str, before: list[Json], init: bool = False) -> list[Container]:
        known = {entry["name"]: entry for entry in before}
        specs = self.pod["spec"].get(kind, [])
        return [Container(self, spec, init=init, previous=known.get(spec["name"])) for spec in specs]

    def _stop(self, grace: float) -> None:
        self._stopped.set()
        for container in self.containers:
            if container in self._sidecars:  # they are ended after the others
                container.begun.set()
            else:
                container.stop(grace)

    async def _mount_volumes(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.node.hosts.add(self)
        while not self._stopped.is_set():
            try:
                await self.volumes.prepare()
                self._mounted = True
                break
            except (VolumeError, ApiError, OSError, aiohttp.ClientError) as error:
                self.warn("FailedMount", f"MountVolume.SetUp failed: {error}")
                self.changed()
                await self._pause(RETRY_SECONDS)
        if self.volumes.renew_after:
            self._tasks.append(asyncio.ensure_future(self._renew_tokens(self.volumes.renew_after)))

    async def _run_inits(self) -> bool:
        """Run the init containers one after the other, and sidecars from then on; False if the pod ends here."""
        for container in self.inits:
            if container.sidecar:
                self._sidecars[container] = asyncio.ensure_future(container.run())
                await container.begun.wait()
                continue
            await container.run()
            self.changed()
            if container.exit_code != 0:
                return False
        return not self._stopped.is_set()

    async def _end_sidecars(self) -> None:
        """End the sidecars once the other containers have ended, the last one first."""
        for container, running in reversed(self._sidecars.items()):
            container.stop(self.grace)
            await running

    async def _renew_tokens(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.volumes.renew_tokens()
            except (VolumeError, ApiError, aiohttp.ClientError) as error:
                self.warn("FailedMount", f"MountVolume.SetUp failed: {error}")

    async def _enforce_deadline(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if not self._finished:
            message = "Pod was active on the node longer than the specified deadline"
            self._failure = {"phase": "Failed", "reason": "DeadlineExceeded", "message": message}
            self._stop(self.grace)

    async def _report(self) -> None:
        """Write the status after each change, and delete a terminating pod after its last one."""
        written = ""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            finished = self._finished
            patch = {"metadata": {"uid": self.uid}, "status": self._status()}
            text = json.dumps(patch, sort_keys=True)
            try:
                if text != written:
                    await self.node.api.patch(pod_path(self.pod, "/status"), patch)
                    written = text
                if finished and self._deleting:
                    await self._delete()
                    return
            except ApiError as error:
                if error.status in (404, 409):  # gone, or another pod of this name
                    return
                await self._retry_later(str(error))
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                await self._retry_later(str(error))

    async def _retry_later(self, problem: str) -> None:
        self.node.log(f"status of {self.full_name}: {problem}; trying again")
        await asyncio.sleep(RETRY_SECONDS)
        self.changed()

    def _status(self) -> Json:
        time = now()
        conditions = status.conditions_of(self.inits, self.main, self._mounted, self._finished, time)
        status.keep_transition_times(conditions, self._conditions)
        self._conditions = conditions
        report: Json = {
            "phase": status.phase_of(self.inits, self.main, self._finished),
            "conditions": conditions,
            "startTime": self._started_at,
            "hostIP": self.node.ip,
            "hostIPs": [{"$patch": "replace"}, {"ip": self.node.ip}],
            "podIP": self.ip,
            # A strategic merge would keep the address from before the node was away beside the new one.
            "podIPs": [{"$patch": "replace"}, {"ip": self.ip}],
            "containerStatuses": [container.status() for container in self.main],
        }
        if self.inits:
            report["initContainerStatuses"] = [container.status() for container in self.inits]
        return report | self._failure

    async def _delete(self) -> None:
        await self.node.api.delete(
            pod_path(self.pod),
            {
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "gracePeriodSeconds": 0,
                "preconditions": {"uid": self.uid},
            },
        )

    async def _emit(self, kind: str, reason: str, message: str) -> None:
        meta = self.pod["metadata"]
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{meta['name'][:200]}.", "namespace": meta["namespace"]},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": meta["namespace"]}
            | {"name": meta["name"], "uid": self.uid},
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": "kubelet", "host": self.node.name},
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "count": 1,
        }
        # An event is a courtesy: its namespace may be going away.
        with contextlib.suppress(TimeoutError, ApiError, aiohttp.ClientError, OSError):
            await self.node.api.post(f"/api/v1/namespaces/{meta['namespace']}/events", event)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)
