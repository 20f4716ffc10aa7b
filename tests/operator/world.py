"""A namespace with a volume, and FineTuneJobs in it as a test sees them. Waits for conditions, never for time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster, pauses

Json = dict[str, Any]
WAIT_SECONDS = 120.0
CLAIM = "shared"
CHILDREN = ("jobs", "pods", "services", "configmaps", "networkpolicies")
GROUPS = {
    "finetunejobs": "/apis/unfreeze.dev/v1alpha1",
    "jobs": "/apis/batch/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "events": "/apis/events.k8s.io/v1",
}


def spec(name: str = "job", *, nodes: int = 1, fake: Json | None = None, **run_policy: Any) -> Json:
    """Return a small valid spec; `fake` tells the fake trainer what to do."""
    env = [{"name": "FAKE", "value": json.dumps(fake or {})}]
    return {
        "model": {"source": f"pvc://{CLAIM}/model"},
        "task": {"type": "TextClassification"},
        "data": {"train": {"source": f"pvc://{CLAIM}/train.csv"}},
        "strategy": {"type": "FullFineTuning"},
        "distribution": {"numNodes": nodes},
        "output": {"destination": f"pvc://{CLAIM}/{name}"},
        "runPolicy": {"backoffLimit": 0, **run_policy},
        "template": {"env": env},
    }


class World:
    """One namespace; `folder` is its volume on this machine."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.folder = folder
        folder.chmod(0o777)
        self._make_volume()

    def path(self, plural: str, name: str = "") -> str:
        return f"{GROUPS.get(plural, '/api/v1')}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def _make_volume(self) -> None:
        volume = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "hostPath": {"path": str(self.folder)},
            "claimRef": {"namespace": self.namespace, "name": CLAIM},
            "persistentVolumeReclaimPolicy": "Retain",
        }
        name = f"volume-{self.namespace}"
        self.cluster.create("/api/v1/persistentvolumes", {"metadata": {"name": name}, "spec": volume})
        claim = {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "volumeName": name,
            "resources": {"requests": {"storage": "1Gi"}},
        }
        self.cluster.create(self.path("persistentvolumeclaims"), {"metadata": {"name": CLAIM}, "spec": claim})

    # -- FineTuneJobs ----------------------------------------------------------------------------------------

    def create(
        self, name: str = "job", body: Json | None = None, *, labels: Json | None = None, **options: Any
    ) -> Json:
        """Create a FineTuneJob from `body` or from spec(...)."""
        manifest = {
            "apiVersion": "unfreeze.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": name, "labels": labels or {}},
            "spec": body or spec(name, **options),
        }
        return self.cluster.create(self.path("finetunejobs"), manifest)

    def get(self, name: str = "job") -> Json:
        return self.cluster.get(self.path("finetunejobs", name))

    def status(self, name: str = "job") -> Json:
        return self.get(name).get("status", {})

    def patch(self, change: Json, name: str = "job") -> Json:
        code, answer = self.cluster.request("PATCH", self.path("finetunejobs", name), {"spec": change})
        assert code == 200, answer
        return answer

    def suspend(self, value: bool, name: str = "job") -> Json:
        return self.patch({"runPolicy": {"suspend": value}}, name)

    def delete(self, plural: str, name: str) -> None:
        body = {"propagationPolicy": "Background"}
        code, answer = self.cluster.request("DELETE", self.path(plural, name), body)
        assert code in (200, 202), answer

    def wait(
        self, condition: Callable[[Json], Any], name: str = "job", *, what: str = "", seconds: float = WAIT_SECONDS
    ) -> Json:
        """Wait until the status of a job fulfils a condition and return it."""

        def settled(job: Json) -> bool:
            status = job.get("status", {})
            if condition(status):
                return True
            assert status.get("phase") != "Failed" or "completionTime" not in status, f"{name} has failed: {status}"
            return False

        job = self.cluster.wait_for(self.path("finetunejobs", name), settled, timeout=seconds, what=what)
        return job.get("status", {})

    def wait_phase(self, phase: str, name: str = "job") -> Json:
        return self.wait(lambda status: status.get("phase") == phase, name, what=phase)

    # -- what belongs to them --------------------------------------------------------------------------------

    def list(self, plural: str) -> list[Json]:
        return self.cluster.get(self.path(plural))["items"]

    def children(self, plural: str) -> list[Json]:
        """Return the operator's objects of a kind."""
        return [item for item in self.list(plural) if "unfreeze.dev/job-name" in item["metadata"].get("labels", {})]

    def wait_children(self, plural: str, count: int) -> list[Json]:
        until(lambda: len(self.children(plural)) == count, f"{count} {plural}")
        return self.children(plural)

    def events(self) -> list[str]:
        """Return the reasons of the operator's events, oldest first."""
        found = [event for event in self.list("events") if "unfreeze" in event.get("reportingController", "")]
        return [event["reason"] for event in sorted(found, key=lambda event: event["eventTime"])]

    def wait_events(self, *reasons: str) -> None:
        """Wait until exactly these events have been told; each follows the status that it is about."""
        until(lambda: self.events()[len(reasons) - 1 :], f"events {reasons}, not {self.events()}")
        assert self.events() == list(reasons)

    def go(self, name: str = "job") -> None:
        """Let a trainer that holds go on."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
        (folder / "go").touch()


def until(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """Wait until a condition gives something and return that."""
    deadline = time.monotonic() + seconds
    waits = pauses()
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(next(waits))
    return found


def condition(status: Json, type_: str) -> Json:
    return next((found for found in status.get("conditions", []) if found["type"] == type_), {})


def ended(job: Json) -> bool:
    """Whether a Job has failed."""
    return any(c["type"] == "Failed" and c["status"] == "True" for c in job["status"].get("conditions", ()))


def unschedulable(body: Json) -> None:
    """Let no node fit the pods of a spec."""
    body["template"]["nodeSelector"] = {"no": "such-node"}
