"""A cluster of dictionaries for the pure tests: actions of plans change it, views are read from it."""

from __future__ import annotations

import copy
import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.operator.world import spec
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_api.job import parse_spec
from unfreeze_operator.decisions.plan import Plan, plan
from unfreeze_operator.objects.actions import Abandon, Action, Create, Delete, Patch
from unfreeze_operator.objects.packing import unpack
from unfreeze_operator.objects.pod_groups import pod_group_view
from unfreeze_operator.objects.resources import (
    CONFIG_MAPS,
    JOB_LABEL,
    JOBS,
    NETWORK_POLICIES,
    POD_GROUPS,
    PODS,
    SERVICES,
    Manifest,
    Resource,
)
from unfreeze_operator.objects.views import (
    FineTuneJobView,
    config_map_view,
    fine_tune_job_view,
    job_view,
    network_policy_view,
    pod_view,
    service_view,
)
from unfreeze_operator.observed.context import Children, Context
from unfreeze_operator.settings.options import TrainerImage

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
IMAGE = TrainerImage("trainer:1")


def text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def job(
    *, uid: str = "u1", queue: str = "", generation: int = 1, name: str = "job", nodes: int = 1, **policy: Any
) -> FineTuneJobView:
    labels = {"kueue.x-k8s.io/queue-name": queue} if queue else {}
    meta = {
        "name": name,
        "namespace": "ns",
        "uid": uid,
        "resourceVersion": "1",
        "generation": generation,
        "creationTimestamp": text(NOW),
        "labels": labels,
    }
    return fine_tune_job_view({"metadata": meta, "spec": spec(name, nodes=nodes, **policy)})


def pod(
    index: int = 0,
    phase: str = "Running",
    *,
    owner: str = "j1",
    name: str = "",
    created: datetime = NOW,
    ended: datetime | None = None,
    code: int | None = None,
    reason: str = "",
    message: str = "",
) -> Manifest:
    state: Manifest = {}
    if code is not None:
        state = {
            "terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": text(ended or NOW)}
        }
    return {
        "metadata": {
            "name": name or f"job-{index}-{phase.lower()}",
            "namespace": "ns",
            "uid": f"pod-{index}-{name}",
            "resourceVersion": "1",
            "creationTimestamp": text(created),
            "labels": {JOB_LABEL: "job"},
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
            "ownerReferences": [{"uid": owner, "controller": True}],
        },
        "spec": {"nodeName": "node-0"},
        "status": {
            "phase": phase,
            "startTime": text(created),
            "podIP": "127.0.0.9",
            "conditions": [{"type": "Ready", "status": "True" if phase == "Running" else "False"}],
            "containerStatuses": [{"state": state}],
        },
    }


def unscheduled(index: int, message: str, reason: str = "Unschedulable") -> Manifest:
    """Return a pod that the scheduler finds no node for."""
    raw = pod(index, "Pending")
    raw["spec"] = {}
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    raw["status"] = {"phase": "Pending", "conditions": [condition]}
    return raw


def deleted(manifest: Manifest, at: datetime = NOW) -> Manifest:
    """Return a pod that somebody deletes; `at` is when its grace period is over."""
    return {**manifest, "metadata": {**manifest["metadata"], "deletionTimestamp": text(at)}}


def unheard(manifest: Manifest) -> Manifest:
    """Return a running pod whose node the cluster has not heard of."""
    conditions = [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "False"}]
    return {**manifest, "status": {**manifest["status"], "conditions": conditions}}


def disrupted(manifest: Manifest) -> Manifest:
    """Return a pod that Kubernetes takes away."""
    conditions = [*manifest["status"]["conditions"], {"type": "DisruptionTarget", "status": "True"}]
    return {**manifest, "status": {**manifest["status"], "conditions": conditions}}


class FakeCluster:
    """Objects by kind and name; `refused` collects what a real API server would not have done."""

    def __init__(self, *, pod_groups: bool = False) -> None:
        self.pod_groups = pod_groups
        """Whether the server has PodGroups."""
        self.departed: list[Manifest] = []
        self.objects: dict[tuple[Resource, str], Manifest] = {}
        self._uids = itertools.count(1)

    def apply(self, action: Action) -> None:
        match action:
            case Create(resource, manifest):
                key = (resource, manifest["metadata"]["name"])
                if key not in self.objects:
                    self.add(resource, manifest)
            case Patch(resource, view, change):
                found = self.objects[resource, view.name]
                assert found["metadata"]["uid"] == view.uid
                merge(found, change)
            case Abandon(view):
                self.objects.pop((PODS, view.name), None)
            case Delete(resource, view):
                self.objects.pop((resource, view.name), None)

    def add(self, resource: Resource, manifest: Manifest, uid: str = "") -> Manifest:
        raw = copy.deepcopy(manifest)
        number = next(self._uids)
        prefix = resource.kind[0].lower()
        raw["metadata"] |= {"uid": uid or f"{prefix}{number}", "resourceVersion": str(number)}
        raw["metadata"].setdefault("creationTimestamp", text(NOW))
        self.objects[resource, raw["metadata"]["name"]] = raw
        return raw

    def of(self, resource: Resource) -> list[Manifest]:
        return [raw for (kind, _), raw in self.objects.items() if kind == resource]

    def job(self) -> Manifest:
        (found,) = self.of(JOBS)
        return found

    def children(self, owner: str) -> Children:
        return Children.of(
            owner,
            [job_view(raw) for raw in self.of(JOBS)],
            [service_view(raw) for raw in self.of(SERVICES)],
            [config_map_view(raw) for raw in self.of(CONFIG_MAPS)],
            [network_policy_view(raw) for raw in self.of(NETWORK_POLICIES)],
            pods=[pod_view(raw) for raw in self.of(PODS)],
            departed=[pod_view(raw) for raw in self.departed],
            pod_groups=[pod_group_view(raw) for raw in self.of(POD_GROUPS)] if self.pod_groups else None,
        )

    def context(self, view: FineTuneJobView, status: FineTuneJobStatus | None = None, *, after: float = 0) -> Context:
        return Context(
            view,
            parse_spec(json.loads(unpack(view.spec))),
            status or FineTuneJobStatus(),
            self.children(view.uid),
            NOW + timedelta(seconds=after),
            IMAGE,
        )

    def step(self, view: FineTuneJobView, status: FineTuneJobStatus | None = None, *, after: float = 0) -> Plan:
        """Plan once and carry it out."""
        made = plan(self.context(view, status, after=after))
        for action in made.actions:
            self.apply(action)
        return made


def merge(target: Manifest, change: Manifest) -> None:
    """Apply a JSON merge patch (RFC 7386)."""
    for name, value in change.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict):
            merge(target.setdefault(name, {}), value)
        else:
            target[name] = value
