"""Small slotted views of the objects in the caches: a raw pod costs 77 KiB of memory, its view a fifth of one.

Two views are equal when nothing that the operator reacts to differs, so heartbeats cause no reconcile.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from sys import intern
from typing import Any

from unfreeze_api.contracts.names import INDEX_ANNOTATION
from unfreeze_api.sources import needs
from unfreeze_api.spec.distribution import accelerators_of
from unfreeze_operator.objects.packing import pack, unpack
from unfreeze_operator.objects.resources import (
    CARRIED_ANNOTATION,
    CHILD_JOB_ANNOTATION,
    CONTAINER,
    CONTENT_HASH_ANNOTATION,
    FETCHER,
    JOB_FILE,
    JOB_LABEL,
    PRIORITY_LABEL,
    QUEUE_LABEL,
    RESUMED_ANNOTATION,
    SERVICE_ANNOTATION,
    SPEC_HASH_ANNOTATION,
    Key,
    Manifest,
    child_name,
)
from unfreeze_operator.objects.waiting import Waiting, is_stuck, waiting

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GATED = "ReadinessGatesNotReady"
"""Of a pod that waits for a gate that the cluster has put into it, in the words of a node that is heard of."""
_SKEW = timedelta(seconds=3)
"""By how much the operator's clock may be ahead of the cluster's."""


@lru_cache(maxsize=256)  # what happens to a job within a second has one time, not one for each of its objects
def parse_time(text: str | None) -> datetime | None:
    """Read a timestamp of the API; None stays None."""
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def content_hash(text: str) -> str:
    """Return the hash of a ConfigMap's job.json."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class View:
    """What every view has."""

    namespace: str
    name: str
    uid: str
    version: int = field(compare=False)
    """resourceVersion; orders events of one object."""
    created: datetime
    deleting: bool

    @property
    def key(self) -> Key:
        """The FineTuneJob that this object is about."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ChildView(View):
    """What every view of a child has."""

    owner: str
    """UID of the controlling owner, or nothing."""
    job: str
    """Value of the job label."""

    @property
    def key(self) -> Key:
        """The FineTuneJob that this child belongs to by its label."""
        return (self.namespace, self.job)


@dataclass(frozen=True, slots=True)
class FineTuneJobView(View):
    """A FineTuneJob; spec and status stay packed JSON until they are needed, which keeps 10,000 of them small."""

    generation: int
    queue: str
    priority_class: str
    """Kueue's, for the job in its queue."""
    strategy: str
    spec: bytes
    status: bytes
    destination: str = ""
    """On a volume claim, where jobs may meet; empty elsewhere."""

    @property
    def key(self) -> Key:
        """Namespace and label value of this job."""
        return (self.namespace, child_name(self.name))


@dataclass(frozen=True, slots=True)
class JobCondition:
    """A condition of a Job that is true."""

    type: str
    reason: str
    message: str
    time: datetime


@dataclass(frozen=True, slots=True)
class JobView(ChildView):
    """A child Job."""

    suspended: bool
    completions: int
    parallelism: int
    backoff_limit: int
    active_deadline: int | None
    spec_hash: str
    carried: str
    started: datetime | None
    completed: datetime | None
    active: int
    failed: int
    """Pods that count towards the backoff limit."""
    succeeded: int
    conditions: tuple[JobCondition, ...]
    subdomain: str = ""
    """Name of the Service under whose names its pods are."""
    pod_group: str = ""
    """Name of the PodGroup that its pods are in; nothing for none."""
    counted: datetime | None = None
    """Since when the Job controller counts towards the deadline; may be before this run, or while it is suspended."""
    queue: str = ""
    """Kueue's, that it was made for: the job's may be another one by now."""

    def condition(self, *types: str) -> JobCondition | None:
        """Return the first true condition of one of the types."""
        return next((condition for condition in self.conditions if condition.type in types), None)

    @property
    def overcounted(self) -> int:
        """Seconds of before this run that the Job controller counts towards the deadline."""
        return int((self.started - self.counted).total_seconds()) if self.started and self.counted else 0

    @property
    def ended(self) -> bool:
        """Whether the Job controller is done with it."""
        return self.condition("Complete", "Failed") is not None

    @property
    def ending(self) -> bool:
        """Whether its outcome is settled; pods may still run."""
        return self.condition("Complete", "Failed", "SuccessCriteriaMet", "FailureTarget") is not None


@dataclass(frozen=True, slots=True)
class PodView(ChildView):
    """A pod of a child Job."""

    index: int
    phase: str
    ready: bool
    node: str
    ip: str
    started: datetime | None
    finished: datetime | None
    exit_code: int | None
    reason: str
    """Why the pod, in its node's words, or else its container ended: Evicted, OOMKilled, Error, ..."""
    message: str
    """Termination message of its container, or else the pod's message."""
    waiting: Waiting | None
    """What it waits for; None when it runs or has ended."""
    gone_by: datetime | None
    """When its grace period is over, for a pod that is being deleted."""
    disrupted: bool
    """Whether Kubernetes took it away: evicted, preempted, drained, its node lost."""
    disruption: str = ""
    """Who takes it away, and why, in Kubernetes' words."""
    deleted_at: datetime | None = None
    """When it was deleted; its grace period began then."""
    unheard: bool = False
    """Whether its node has not been heard of for so long that the cluster takes the pod out of service."""
    accelerators: int | None = None
    """That it holds, by its own limits: the job's may be others by now. None where it does not say."""
    scheduled: datetime | None = None
    """When it got its node, by the cluster's clock; `started` is by that of the node."""
    told: str = ""
    """Why it failed, in its node's words: what it was short of, why it did not take the pod."""

    @property
    def live(self) -> bool:
        """Whether its container may still run."""
        return self.phase not in ("Succeeded", "Failed")

    @property
    def scheduler_knows(self) -> bool:
        """Whether the scheduler has given it a node, or said why it does not."""
        return bool(self.node) or self.waiting is not None

    @property
    def termination_message(self) -> str:
        """Its message, once its container has ended: it does not start again, and the pod's phase follows later."""
        return self.message if self.exit_code is not None or not self.live else ""


def has_termination_message(pod: PodView) -> bool:
    """Whether a pod led its gang and has ended with a message: its checkpoint, how far it came."""
    return pod.index == 0 and bool(pod.termination_message)


@dataclass(frozen=True, slots=True)
class ServiceView(ChildView):
    """A child Service; its shape is everything that the pods rely on, as packed JSON."""

    shape: bytes


@dataclass(frozen=True, slots=True)
class NetworkPolicyView(ChildView):
    """A child NetworkPolicy; its shape is its whole spec, as packed JSON."""

    shape: bytes


@dataclass(frozen=True, slots=True)
class ConfigMapView(ChildView):
    """A child ConfigMap."""

    spec_hash: str
    intended: str
    actual: str
    service: str = ""
    """Name of the Service under which the pods meet; empty where it has the job's own name, as it had once."""
    child_job: str = ""
    """Name of the child Job; likewise."""

    @property
    def drifted(self) -> bool:
        """Whether somebody else changed its content."""
        return self.intended != self.actual


def base_fields(raw: Manifest) -> dict[str, Any]:
    """Return what every view has of an object."""
    meta = raw["metadata"]
    return {
        "namespace": intern(meta.get("namespace", "")),
        "name": intern(meta["name"]),  # some children have one name
        "uid": intern(meta["uid"]),  # a job's is the owner of its children
        "version": int(meta["resourceVersion"]),
        "created": parse_time(meta.get("creationTimestamp")) or EPOCH,
        "deleting": "deletionTimestamp" in meta,
    }


def child_fields(raw: Manifest) -> dict[str, Any]:
    """Return what every view of a child has of an object."""
    owners = raw["metadata"].get("ownerReferences", ())
    owner = next((owner["uid"] for owner in owners if owner.get("controller")), "")
    label = raw["metadata"].get("labels", {}).get(JOB_LABEL, "")
    return {**base_fields(raw), "owner": intern(owner), "job": intern(label)}


def _annotation(raw: Manifest, name: str) -> str:
    return str(raw["metadata"].get("annotations", {}).get(name, ""))


def fine_tune_job_view(raw: Manifest) -> FineTuneJobView:
    """Return the view of a FineTuneJob."""
    labels = raw["metadata"].get("labels", {})
    return FineTuneJobView(
        **base_fields(raw),
        generation=raw["metadata"].get("generation", 0),
        queue=intern(labels.get(QUEUE_LABEL, "")),
        priority_class=intern(labels.get(PRIORITY_LABEL, "")),
        strategy=_strategy(raw.get("spec") or {}),
        spec=pack(raw.get("spec") or {}),
        status=pack(raw.get("status") or {}),
        destination=_destination(raw.get("spec") or {}),
    )


def _destination(spec: Manifest) -> str:
    output = spec.get("output")
    found = str(output.get("destination", "")) if isinstance(output, dict) else ""
    return found if needs(found).claims else ""


def _strategy(spec: Manifest) -> str:
    """Return the type of the strategy, of a spec that another version of the schema may have let in."""
    strategy = spec.get("strategy")
    return intern(str(strategy.get("type", ""))) if isinstance(strategy, dict) else ""


def job_view(raw: Manifest) -> JobView:
    """Return the view of a Job."""
    spec, status = raw["spec"], raw.get("status", {})
    template = spec.get("template", {}).get("spec", {})
    conditions = (
        JobCondition(
            intern(condition["type"]),
            intern(condition.get("reason", "")),
            intern(condition.get("message", "")),
            parse_time(condition.get("lastTransitionTime")) or EPOCH,
        )
        for condition in status.get("conditions", ())
        if condition["status"] == "True"
    )
    return JobView(
        **child_fields(raw),
        suspended=spec.get("suspend", False),
        completions=spec.get("completions", 1),
        parallelism=spec.get("parallelism", 1),
        backoff_limit=spec.get("backoffLimit", 6),
        active_deadline=spec.get("activeDeadlineSeconds"),
        spec_hash=intern(_annotation(raw, SPEC_HASH_ANNOTATION)),
        carried=intern(_annotation(raw, CARRIED_ANNOTATION)),
        started=_begun(parse_time(status.get("startTime")), _annotation(raw, RESUMED_ANNOTATION)),
        completed=parse_time(status.get("completionTime")),
        active=status.get("active", 0),
        failed=status.get("failed", 0),
        succeeded=status.get("succeeded", 0),
        conditions=tuple(conditions),
        subdomain=intern(str(template.get("subdomain", ""))),
        pod_group=intern(str((template.get("schedulingGroup") or {}).get("podGroupName", ""))),
        counted=parse_time(status.get("startTime")),
        queue=intern(raw["metadata"].get("labels", {}).get(QUEUE_LABEL, "")),
    )


def _begun(started: datetime | None, resumed: str) -> datetime | None:
    """Return when this run of a Job began: long before it was resumed is an earlier run's start, which its status still tells.

    Else the status is right: by its clock pods are made, and none of this run must seem to be of before it.
    """
    with suppress(OverflowError, ValueError):  # edited by hand
        known = parse_time(resumed)
        if started is not None and known is not None and known - started > _SKEW:
            return known
    return started


def pod_view(raw: Manifest) -> PodView:
    """Return the view of a pod."""
    status = raw.get("status", {})
    containers = status.get("containerStatuses", ())
    # The trainer's; others can be put into a pod by the cluster, and sort before it.
    container: Manifest = next((c for c in containers if c.get("name") == CONTAINER), next(iter(containers), {}))
    ended = container.get("state", {}).get("terminated") or {}
    phase = intern(status.get("phase", "Pending"))
    index = _annotation(raw, INDEX_ANNOTATION)
    gone_by = parse_time(raw["metadata"].get("deletionTimestamp"))
    grace = timedelta(seconds=raw["metadata"].get("deletionGracePeriodSeconds") or 0)
    return PodView(
        **child_fields(raw),
        index=int(index) if index.isdecimal() else -1,
        phase=phase,
        ready=_holds(status, "Ready"),
        node=intern(raw["spec"].get("nodeName", "")),
        ip=status.get("podIP", ""),
        started=parse_time(status.get("startTime")),
        finished=parse_time(ended.get("finishedAt")),
        exit_code=ended.get("exitCode"),
        reason=intern(status.get("reason") or ended.get("reason") or ""),
        message=ended.get("message") or status.get("message") or "",
        waiting=waiting(status, _waiting_container(status, container)),
        gone_by=gone_by,
        disrupted=_holds(status, "DisruptionTarget"),
        disruption=intern(_disruption(status)),
        deleted_at=gone_by and gone_by - grace,
        # A node that reports gives both one value. The cluster writes but the first, for a node that does not.
        unheard=_holds(status, "ContainersReady")
        and _condition(status, "Ready").get("reason") != _GATED
        and not _holds(status, "Ready"),
        accelerators=_accelerators(raw["spec"]),
        scheduled=_scheduled(status),
        told=status.get("message") or "" if phase == "Failed" else "",
    )


def _accelerators(spec: Manifest) -> int | None:
    trainer = next((c for c in spec.get("containers", ()) if c.get("name") == CONTAINER), None)
    if trainer is None:
        return None
    limits = trainer.get("resources", {}).get("limits") or {}
    return sum(accelerators_of(limits).values())


def _waiting_container(status: Manifest, trainer: Manifest) -> Manifest:
    """Return the status of the container that does not start: the trainer's, or one that the pod does not run without.

    Others than the fetcher are put into the pod by the cluster: a proxy, an agent with secrets.
    """
    all_ = [*status.get("initContainerStatuses", ()), trainer, *status.get("containerStatuses", ())]
    stuck = (one for one in all_ if is_stuck(one))
    fetcher = (c for c in all_ if c.get("name") == FETCHER and "waiting" in c.get("state", {}))
    return next(stuck, next(fetcher, trainer))


def _condition(status: Manifest, type_: str) -> Manifest:
    return next((c for c in status.get("conditions", ()) if c["type"] == type_), {})


def _holds(status: Manifest, type_: str) -> bool:
    return bool(_condition(status, type_).get("status") == "True")


def _scheduled(status: Manifest) -> datetime | None:
    found = _condition(status, "PodScheduled")
    return parse_time(found.get("lastTransitionTime")) if found.get("status") == "True" else None


def _disruption(status: Manifest) -> str:
    found = _condition(status, "DisruptionTarget") if _holds(status, "DisruptionTarget") else {}
    return str(found.get("message") or found.get("reason") or "")


def service_shape(spec: Manifest) -> bytes:
    """Return what the pods rely on in a Service, to compare."""
    ports = sorted((port.get("name", ""), port["port"]) for port in spec.get("ports", ()))
    return pack([spec.get("clusterIP"), spec.get("publishNotReadyAddresses", False), spec.get("selector"), ports])


def selector_of(shape: bytes) -> list[str]:
    """Return the labels that a Service of this shape selects by."""
    return list(json.loads(unpack(shape))[2] or ())


def service_view(raw: Manifest) -> ServiceView:
    """Return the view of a Service."""
    return ServiceView(**child_fields(raw), shape=service_shape(raw["spec"]))


def network_policy_view(raw: Manifest) -> NetworkPolicyView:
    """Return the view of a NetworkPolicy."""
    return NetworkPolicyView(**child_fields(raw), shape=pack(raw["spec"]))


def config_map_view(raw: Manifest) -> ConfigMapView:
    """Return the view of a ConfigMap."""
    intended, actual = _annotation(raw, CONTENT_HASH_ANNOTATION), content_hash(raw.get("data", {}).get(JOB_FILE, ""))
    return ConfigMapView(
        **child_fields(raw),
        spec_hash=intern(_annotation(raw, SPEC_HASH_ANNOTATION)),
        intended=intended,
        actual=intended if actual == intended else actual,  # one text, not two
        service=intern(_annotation(raw, SERVICE_ANNOTATION)),
        child_job=intern(_annotation(raw, CHILD_JOB_ANNOTATION)),
    )
