"""Kubernetes Events of a job: one for each step of its life but the first, which its status tells; none for progress."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from unfreeze_api.contracts.budget import DECISIONS, MAX_DECISIONS
from unfreeze_api.contracts.reasons import EventReason
from unfreeze_api.contracts.status import FineTuneJobStatus, JobPhase
from unfreeze_operator.objects.resources import FINE_TUNE_JOBS, MANAGER, Manifest
from unfreeze_operator.objects.views import FineTuneJobView, JobView
from unfreeze_operator.observed.context import SHARED
from unfreeze_operator.status.budget import clipped
from unfreeze_operator.status.build import condition

_NOTE = 1024
"""Bytes that the API server takes."""
MOST_RESTARTS = 64
"""Restarts within their pods that are worth an event: the trainers count them, which must not have events made at will."""


@dataclass(frozen=True, slots=True)
class Note:
    """What there is to report."""

    type: Literal["Normal", "Warning"]
    reason: EventReason
    text: str
    mark: str = ""
    """Tells two events of the same reason apart."""


def notes(old: FineTuneJobStatus, new: FineTuneJobStatus, job: JobView | None = None) -> list[Note]:
    """Return what is worth an event in the step from one status to the next.

    What tells a step apart from another one of its kind is taken from the specs, from the child Job, or from the status
    that it begins at: when the step is tried again, at another time, or by another operator, it is the same step.

    Parameters
    ----------
    old, new
        The two statuses.
    job
        The child Job, if there is one.
    """
    found: list[Note] = []
    before, after = old.restarts, new.restarts
    if after and after.pods > (before.pods if before else 0):
        why = f": {new.failure.reason}: {new.failure.message}" if new.failure else ""
        found.append(Note("Warning", "PodRestarted", f"a pod failed and was replaced{why}", str(after.pods)))
    restarted = before.in_place if before else 0
    if after and restarted < min(after.in_place, MOST_RESTARTS):
        text = "the workers were started again within their pods"
        found.append(Note("Warning", "WorkersRestarted", text, str(after.in_place)))
    broken, known = condition(new, "CheckpointBroken"), condition(old, "CheckpointBroken")
    if broken is not None and (known is None or known.message != broken.message):
        told = f"{after.pods} {min(after.in_place, MOST_RESTARTS)}" if after else ""
        found.append(Note("Warning", "CheckpointBroken", broken.message, f"{new.observed_generation} {told}"))
    found += _decided(old, new)
    for reason, texts, earlier in zip(_WARNINGS, _sorted(new.warnings), _sorted(old.warnings), strict=True):
        if texts and texts != earlier:
            found.append(Note("Warning", reason, "; ".join(texts), "; ".join(texts)))
    running, was = condition(new, "Running"), condition(old, "Running")
    if new.phase != old.phase:
        found += _phase_notes(old, new, job)
    if running is not None and (was is None or was.reason != running.reason):
        found += [Note("Warning", why, running.message, _mark(old, new)) for why in _BLOCKED if why == running.reason]
    return found


def _decided(old: FineTuneJobStatus, new: FineTuneJobStatus) -> Iterator[Note]:
    """Yield what the training has found out: as many decisions as a status lists, and of later ones the first of each type."""
    useful = condition(new, "Useful")
    if useful is not None and useful.status == "False" and condition(old, "Useful") is None:
        yield Note("Warning", "NoBetterThanMajority", useful.message, str(new.observed_generation))
    known = {one.key for one in old.decisions}
    more = [one for one in new.decisions if one.key not in known]
    room = max(0, MAX_DECISIONS - len(known))
    for place, one in enumerate(more):
        if place < room or one.type in DECISIONS:
            mark = f"{one.type} {one.step}" if place < room else one.type  # whose event is made once
            text = f"{one.type}: {one.message}"
            yield Note("Warning" if one.warning else "Normal", "Decided", text, mark)


def _sorted(warnings: list[str]) -> tuple[list[str], list[str]]:
    """Return those about the spec, and those about other jobs."""
    shared = [text for text in warnings if text.startswith(SHARED)]
    return [text for text in warnings if text not in shared], shared


_WARNINGS: tuple[EventReason, EventReason] = ("DeprecatedField", "SharedDestination")
_BLOCKED: tuple[EventReason, ...] = ("NameTaken", "Forbidden", "NodesGivenBack")
"""Reasons of condition Running that are worth an event."""
_PHASES: dict[JobPhase, tuple[EventReason, str]] = {
    "Running": ("Running", "all pods are running"),
    "Suspended": ("Suspended", "the job is suspended"),
    "Queued": ("Queued", "the job waits for Kueue to admit it"),
    "Succeeded": ("Succeeded", "the job has succeeded"),
}


def _phase_notes(old: FineTuneJobStatus, new: FineTuneJobStatus, job: JobView | None) -> list[Note]:
    mark = str(new.observed_generation)
    if new.phase == "Running" and job is not None:
        # Once in each run: Kueue begins one without a new generation. In one run a gang may be preempted, and find nodes again.
        mark += f" {job.uid} {job.started}{' ' + _mark(old, new) if job.pod_group else ''}"
    if new.phase == "Queued":
        mark = _mark(old, new)
    if new.phase in _PHASES:
        return [Note("Normal", *_PHASES[new.phase], mark)]
    if new.phase == "Pending" and old.phase == "Suspended":
        return [Note("Normal", "Resumed", "the job resumes from its newest checkpoint", mark)]
    if new.phase == "Failed" and new.failure is not None:
        where = f" (pod {new.failure.pod})" if new.failure.pod else ""
        text = f"{new.failure.reason}: {new.failure.message}{where}"
        return [Note("Warning", "Failed", text, f"{mark} {new.failure.reason}")]
    return []


def _mark(old: FineTuneJobStatus, new: FineTuneJobStatus) -> str:
    # Times are whole seconds, in which a job may be suspended and resumed; each of that is a generation.
    since = max((condition.last_transition_time for condition in old.conditions), default="")
    return f"{new.observed_generation} {old.phase} {since}"


def event(job: FineTuneJobView, note: Note, now: datetime, instance: str) -> Manifest:
    """Return the Event. Its name follows from what it reports, so that posting it twice makes one object."""
    digest = hashlib.sha256(f"{job.uid}/{note.reason}/{note.mark}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{job.name}.{digest}", "namespace": job.namespace},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": note.type,
        "reason": note.reason,
        "note": clipped(note.text, _NOTE),
        "action": note.reason,
        "reportingController": f"{FINE_TUNE_JOBS.api_version.partition('/')[0]}/{MANAGER}",
        "reportingInstance": instance[:128],
        "regarding": {
            "apiVersion": FINE_TUNE_JOBS.api_version,
            "kind": FINE_TUNE_JOBS.kind,
            "name": job.name,
            "namespace": job.namespace,
            "uid": job.uid,
        },
    }
