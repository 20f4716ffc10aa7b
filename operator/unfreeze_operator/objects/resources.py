"""The kinds of objects that the operator reads and writes, and the names and labels that it gives them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from unfreeze_api.contracts import names as api

MANAGER = "unfreeze-operator"
"""Field manager, value of the managed-by label and reporting controller of events."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
JOB_LABEL = api.JOB_LABEL
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
SELECTOR = f"{MANAGED_BY_LABEL}={MANAGER}"
"""Selects every child of every FineTuneJob."""
WORKLOAD_SELECTOR = "kueue.x-k8s.io/job-uid"
"""Selects Kueue's Workloads of Jobs and their like, not those of single pods."""

SPEC_HASH_ANNOTATION = "unfreeze.dev/spec-hash"
"""Hash of the part of the spec that may change while a job is suspended."""
SERVICE_ANNOTATION = "unfreeze.dev/service"
"""Name of the Service that job.json was written for; none where it is that of the FineTuneJob, as it was once."""
CHILD_JOB_ANNOTATION = "unfreeze.dev/child-job"
"""Name of the child Job that job.json was written for; none where it is that of the FineTuneJob, as it was once."""
CONTENT_HASH_ANNOTATION = "unfreeze.dev/content-hash"
"""Hash of job.json as the operator wrote it, so that a change by others is noticed."""
CARRIED_ANNOTATION = "unfreeze.dev/carried"
"""Totals of earlier runs of the same FineTuneJob, so that nothing that is counted is lost when pods go."""
RESUMED_ANNOTATION = "unfreeze.dev/resumed-at"
"""When a Job was resumed last. Kubernetes 1.32 to 1.34.1 often cannot write its new startTime (kubernetes/kubernetes#134521)."""

OPERATOR_LABELS = {"app.kubernetes.io/name": "unfreeze-operator"}
"""Labels of the operator's own pods, by which the NetworkPolicies of jobs let them in."""

CONTAINER = "trainer"
"""Name of the trainer's container in its pods."""
FETCHER = "fetcher"
"""Name of the container that fetches into a claim that other jobs use."""
JOB_FILE = "job.json"
"""Key of the resolved job in its ConfigMap."""

MAX_NAME = 52
"""A pod's host name is `<name>-train-<index>` and a DNS label: of at most 63 characters, 62 with index 511."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object and where the API serves it."""

    api_version: str
    plural: str
    kind: str

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of the collection, or of one object, or of its subresource."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        parts = [root, *(["namespaces", namespace] if namespace else []), self.plural]
        return "/".join([*parts, *([name] if name else []), *([subresource] if subresource else [])])


FINE_TUNE_JOBS = Resource(api.API_VERSION, api.PLURAL, api.KIND)
JOBS = Resource("batch/v1", "jobs", "Job")
PODS = Resource("v1", "pods", "Pod")
SERVICES = Resource("v1", "services", "Service")
CONFIG_MAPS = Resource("v1", "configmaps", "ConfigMap")
NETWORK_POLICIES = Resource("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy")
EVENTS = Resource("events.k8s.io/v1", "events", "Event")
POD_GROUPS = Resource("scheduling.k8s.io/v1beta1", "podgroups", "PodGroup")
WORKLOADS = Resource("kueue.x-k8s.io/v1beta2", "workloads", "Workload")
FORMER_WORKLOADS = Resource("kueue.x-k8s.io/v1beta1", "workloads", "Workload")
"""Of Kueue before 0.15."""
LEASES = Resource("coordination.k8s.io/v1", "leases", "Lease")

Manifest = dict[str, Any]
"""An object as JSON has it."""

Key = tuple[str, str]
"""Namespace of a FineTuneJob and the value of its children's job label: what the queue and the caches are keyed by."""


def child_name(name: str) -> str:
    """Return what the names of a job's children begin with, which is the value of the job label too.

    It is the job's own name, which the schema keeps to 52 characters; a longer one, from another schema, is cut and
    told apart by a hash.
    """
    if len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME - 9].rstrip('-.')}-{digest}"


SUFFIXES = {
    JOBS: "-train",
    SERVICES: "-trainers",
    NETWORK_POLICIES: "-trainers",
    CONFIG_MAPS: "-job",
    POD_GROUPS: "-trainers",
}
"""What children's names end in: fixed, so that nobody chooses one by the name of a job."""


def named(resource: Resource, name: str) -> str:
    """Return the name of a child of a job that begins now."""
    return child_name(name) + SUFFIXES[resource]


@dataclass(frozen=True, slots=True)
class GangNames:
    """The two names that the host names of a gang's pods consist of."""

    job: str
    """Of the child Job."""
    service: str

    @classmethod
    def of(cls, name: str) -> GangNames:
        """Return the names of a job that begins now."""
        return cls(named(JOBS, name), named(SERVICES, name))
