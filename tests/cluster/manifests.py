"""Short ways to write the manifests that the tests of the cluster use, and to look at pods."""

from __future__ import annotations

import socket
from typing import Any

from tests.cluster.cluster import Cluster

Json = dict[str, Any]


def pod(name: str, command: str | list[str], *, container: Json | None = None, **spec: Any) -> Json:
    """Return a pod that runs a shell script, or a list of arguments, once.

    ``container`` is added to its container "main", ``spec`` to the pod's spec; ``labels`` are its labels.
    """
    argv = ["sh", "-c", command] if isinstance(command, str) else command
    main = {"name": "main", "image": "test", "command": argv, **(container or {})}
    metadata = {"name": name, "labels": spec.pop("labels", {})}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": [main], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def pod_path(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/pods" + (f"/{name}" if name else "")


def run(cluster: Cluster, namespace: str, manifest: Json) -> Json:
    """Create a pod and return it once it has ended."""
    cluster.create(pod_path(namespace), manifest)
    return ended(cluster, namespace, manifest["metadata"]["name"])


def ended(cluster: Cluster, namespace: str, name: str) -> Json:
    return cluster.wait_for(pod_path(namespace, name), lambda p: phase(p) in ("Succeeded", "Failed"), what="ended")


def running(cluster: Cluster, namespace: str, name: str) -> Json:
    return cluster.wait_for(pod_path(namespace, name), lambda p: phase(p) == "Running", what="running")


def output(cluster: Cluster, namespace: str, name: str) -> str:
    """Return the log of a pod's only container."""
    return cluster.kubectl("logs", "-n", namespace, name)


def phase(pod: Json) -> str:
    return str(pod.get("status", {}).get("phase", ""))


def main_status(pod: Json) -> Json:
    """Return the status of the first container, {} while there is none."""
    statuses: list[Json] = pod.get("status", {}).get("containerStatuses", [])
    return statuses[0] if statuses else {}


def terminated(pod: Json) -> Json:
    return main_status(pod).get("state", {}).get("terminated", {})


def waiting_reason(pod: Json) -> str:
    return str(main_status(pod).get("state", {}).get("waiting", {}).get("reason", ""))


def free_port() -> int:
    """Return a port that no server of this machine holds on every address, which would keep it from the pods."""
    with socket.create_server(("", 0)) as server:
        port: int = server.getsockname()[1]
        return port
