"""What Kueue says of a child Job: why it is not admitted. Read from Kueue's Workloads, where Kueue is installed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unfreeze_operator.objects.resources import Manifest
from unfreeze_operator.objects.views import ChildView, base_fields


@dataclass(frozen=True, slots=True)
class WorkloadView(ChildView):
    """Kueue's Workload of a Job."""

    message: str
    """Why the Job waits, in Kueue's words; nothing when it is admitted."""


def workload_view(raw: Manifest) -> WorkloadView:
    """Return the view of a Workload. It has no label of ours: in place of one stands the name of the Job that owns it."""
    owners = raw["metadata"].get("ownerReferences", ())
    job: dict[str, Any] = next((o for o in owners if o.get("controller") and o["kind"] == "Job"), {})
    status = raw.get("status", {})
    message = not_admitted(status.get("conditions", ()), status.get("admissionChecks", ()))
    return WorkloadView(**base_fields(raw), owner=job.get("uid", ""), job=job.get("name", ""), message=message)


def not_admitted(conditions: Sequence[Manifest], checks: Sequence[Manifest] = ()) -> str:
    """Return why a Workload with these conditions is not admitted: what has put it out, and what it waits for now.

    Parameters
    ----------
    conditions, checks
        The conditions and the admission checks of its status.
    """
    found = {condition["type"]: condition for condition in conditions}

    def holds(type_: str) -> bool:
        return bool(found.get(type_, {}).get("status") == "True")

    if holds("Admitted"):
        return ""
    reasons = [found["Evicted"].get("message", "")] if holds("Evicted") else []
    if holds("QuotaReserved"):
        waits = ", ".join(_check(check) for check in checks if check.get("state") != "Ready")
        reasons.append(f"quota is reserved; {waits or 'its admission checks are not done'}")
    elif "QuotaReserved" in found:
        reasons.append(found["QuotaReserved"].get("message", ""))
    return "; ".join(dict.fromkeys(text for text in reasons if text))


def _check(check: Manifest) -> str:
    """Return how far an admission check is; what one says that is under way changes from moment to moment."""
    state = check.get("state", "Pending")
    why = f" ({check['message']})" if state != "Pending" and check.get("message") else ""
    return f"admission check {check.get('name', '')} is {state}{why}"
