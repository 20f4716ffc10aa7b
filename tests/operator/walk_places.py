"""The jobs of a walk: two namespaces with jobs of the same names, and what differs between them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.cluster.cluster import Cluster, pauses
from tests.operator.walk_steps import Json
from unfreeze_api.contracts.names import API_VERSION, KIND
from unfreeze_api.resolve import rendezvous_port
from unfreeze_operator.objects.resources import (
    CARRIED_ANNOTATION,
    CONFIG_MAPS,
    CONTENT_HASH_ANNOTATION,
    FINE_TUNE_JOBS,
    JOBS,
    NETWORK_POLICIES,
    PODS,
    RESUMED_ANNOTATION,
    SERVICES,
    GangNames,
    Resource,
    named,
)

CHILDREN = (CONFIG_MAPS, SERVICES, NETWORK_POLICIES, JOBS)


class WalkError(AssertionError):
    """A field is not taken up, or not refused as it should be."""


class Place:
    """A namespace with jobs in it."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def path(self, resource: Resource, name: str = "") -> str:
        return resource.path(self.namespace, name or None)

    def create(self, name: str, spec: Json) -> Json:
        manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
        return self.cluster.create(self.path(FINE_TUNE_JOBS), manifest)

    def patch(self, name: str, change: Json, query: str = "") -> tuple[int, Json]:
        return self.cluster.request("PATCH", self.path(FINE_TUNE_JOBS, name) + query, {"spec": change})

    def changed(self, name: str, change: Json) -> None:
        code, answer = self.patch(name, change)
        if code != 200:
            raise WalkError(f"the API server refuses what it should take: {answer.get('message')}")

    def read(self, resource: Resource, name: str) -> Json | None:
        code, found = self.cluster.request("GET", self.path(resource, name))
        return found if code == 200 else None

    def pods(self, name: str) -> set[str]:
        """Return the UIDs of a job's pods that nobody has deleted."""
        listed = self.cluster.get(f"{self.path(PODS)}?labelSelector=unfreeze.dev/job-name={name}")["items"]
        return {pod["metadata"]["uid"] for pod in listed if "deletionTimestamp" not in pod["metadata"]}

    def told(self, name: str) -> Json:
        """Return what the status of a job says; nothing of one that is gone."""
        job = self.read(FINE_TUNE_JOBS, name)
        return _told(job) if job else {}

    def state(self, name: str) -> Json:
        """Return what there is of a job, without what differs between two jobs of the same spec."""
        job = self.read(FINE_TUNE_JOBS, name)
        if job is None:
            return {}
        children = {
            resource.kind: self.read(resource, GangNames.of(name).job if resource is JOBS else named(resource, name))
            for resource in CHILDREN
        }
        found = {kind: _shape(raw) for kind, raw in children.items()}
        text = json.dumps({"status": _told(job), **found}, sort_keys=True)
        strangers = [job["metadata"]["uid"], *(raw["metadata"]["uid"] for raw in children.values() if raw)]
        for number, uid in enumerate(strangers):
            text = text.replace(uid, f"UID-{number}")
        text = text.replace(str(rendezvous_port(self.namespace, name)), "1").replace(self.namespace, "NAMESPACE")
        state: Json = json.loads(text)
        return state


def _shape(raw: Json | None) -> Json | None:
    """Return what the operator wants of a child."""
    if raw is None:
        return None
    annotations = raw["metadata"].get("annotations", {})
    own = (CARRIED_ANNOTATION, CONTENT_HASH_ANNOTATION, RESUMED_ANNOTATION)
    kept = {k: v for k, v in annotations.items() if k not in own}
    body = {part: raw[part] for part in ("spec", "data") if part in raw}
    for name in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        body.get("spec", {}).pop(name, None)
    return {"labels": raw["metadata"].get("labels"), "annotations": kept, **body}


def bodies(state: Json) -> Json:
    """Return what the children of a state say, without the hashes by which the operator knows them."""
    return {kind: {**child, "annotations": None} for kind, child in state.items() if child and kind != "status"}


def _told(job: Json) -> Json:
    """Return what a status says that does not depend on what the job has been through."""
    status = job.get("status", {})
    return {
        "seen": status.get("observedGeneration") == job["metadata"]["generation"],
        "phase": status.get("phase"),
        "true": sorted(c["type"] for c in status.get("conditions", ()) if c["status"] == "True"),
        "desired": status.get("nodes", {}).get("desired"),
        "failure": status.get("failure", {}).get("reason"),
        "warnings": status.get("warnings"),
    }


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Yield where two states differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from differences(one.get(key), other.get(key), f"{path}.{key}")
    elif one != other:
        yield f"{path or 'all'}: {str(one)[:300]} is not {str(other)[:300]}"


def eventually(condition: Callable[[], Any], what: str, seconds: float, last: Sequence[Any] = ()) -> None:
    """Wait until a condition holds; raise a WalkError that shows what was seen last when it does not in time."""
    deadline = time.monotonic() + seconds
    waits = pauses()
    while not condition():
        if time.monotonic() > deadline:
            raise WalkError(f"not within {seconds:g} s: {what}; {'; '.join(str(one)[:600] for one in last)}")
        time.sleep(next(waits))


@contextlib.contextmanager
def without_nodes(cluster: Cluster) -> Iterator[None]:
    """Let no pod find a node: nothing that is walked needs a running one, and each costs a second of processor time."""
    nodes = [node["metadata"]["name"] for node in cluster.get("/api/v1/nodes")["items"]]

    def cordon(value: bool | None) -> None:
        for name in nodes:
            code, answer = cluster.request("PATCH", f"/api/v1/nodes/{name}", {"spec": {"unschedulable": value}})
            assert code == 200, answer

    cordon(True)
    try:
        yield
    finally:
        cordon(None)


def namespaces(cluster: Cluster) -> tuple[Place, Place]:
    """Make the two namespaces of a walk."""
    for name in ("walk-changed", "walk-fresh"):
        cluster.create("/api/v1/namespaces", {"metadata": {"name": name}})
        cluster.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default", bool)
    return Place(cluster, "walk-changed"), Place(cluster, "walk-fresh")
