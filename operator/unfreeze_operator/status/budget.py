"""The budget of a status: what is written of a job stays below 32 KiB, whatever its pods and the scheduler say. Pure.

Each part has a bound of its own; the phases get what the others leave.
"""

from __future__ import annotations

import json
import re
from typing import Any

from unfreeze_api.contracts import budget
from unfreeze_api.contracts.progress import PhaseResult
from unfreeze_api.contracts.status import Condition, Failure, FineTuneJobStatus, Omitted, WaitingPod
from unfreeze_operator.objects.resources import Manifest
from unfreeze_operator.objects.waiting import MAX_WAITING
from unfreeze_operator.status.history import PARTS

MAX_STATUS_BYTES = 32 * 1024
"""Longest status, as JSON in etcd: each write stores all of it."""
MAX_MESSAGE_BYTES = 1024
"""Longest message of a condition."""
MAX_FAILURE_BYTES = 2048
"""Longest message of a failure, and longest end of a log."""
MAX_WAITING_BYTES = 256
"""Longest message of a pod that waits; the condition has the first one's at length."""

_MARK = "…"
_WIDEST = 6
"""Bytes of a character that JSON escapes."""
_ESCAPED = re.compile("[<>&\u2028\u2029]")
"""What Go's JSON escapes besides."""


def wire(status: FineTuneJobStatus) -> Manifest:
    """Return a status as it is sent: what is empty is left out."""
    fields = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {name: value for name, value in fields.items() if value not in ([], {})}


def stored_bytes(value: Any) -> int:
    """Return the size of a value as the API server stores it: compact JSON as Go writes it, never less."""
    text = json.dumps(_as_go(value), ensure_ascii=False, separators=(",", ":"))
    return len(text.encode()) + sum(_WIDEST - len(found.encode()) for found in _ESCAPED.findall(text))


def _as_go(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_go(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_go(item) for item in value]
    # Python writes an exponent from 1e16 on, Go from 1e21 on.
    return int(value) if isinstance(value, float) and 1e16 <= abs(value) < 1e21 else value  # noqa: PLR2004


def within_budget(status: FineTuneJobStatus, metric: str = "") -> FineTuneJobStatus:
    """Return a status of at most MAX_STATUS_BYTES. One that it has returned is not changed again.

    Parameters
    ----------
    status
        Its phases are in order; of those the newest stay.
    metric
        The job's training.metric, which stays before other metrics.
    """
    progress, omitted = status.progress, status.omitted or Omitted()
    phases = [_finite(budget.phase(phase, metric)) for phase in status.phases]
    results = budget.results(status.results, f"test.{metric}")
    if progress is not None:
        shown = {"phase_name": budget.block(progress.phase_name), "metrics": budget.metrics(progress.metrics, metric)}
        progress = progress.model_copy(update=shown)
    out = status.model_copy(
        update={
            "conditions": [_condition(found) for found in status.conditions],
            "waiting": [_waiting(pod) for pod in status.waiting[:MAX_WAITING]],
            "progress": progress,
            "history": status.history[-(PARTS + 1) :],
            "phases": [],
            "results": results,
            "decisions": budget.decisions(status.decisions),
            "failure": _failure(status.failure),
        }
    )
    listed = _fitting(phases, MAX_STATUS_BYTES - _rest(out)) if phases else []
    omitted = Omitted(
        phases=omitted.phases + len(phases) - len(listed),
        metrics=max(omitted.metrics, _names(status) - _names(out.model_copy(update={"phases": phases}))),
        results=max(omitted.results, len(status.results) - len(results)),
    )
    return out.model_copy(update={"phases": listed, "omitted": omitted if omitted != Omitted() else None})


def _rest(status: FineTuneJobStatus) -> int:
    """Return the bytes of all but the phases, with room for what can still be said of those that are left out."""
    room = FineTuneJobStatus(omitted=Omitted(phases=2**63, metrics=2**63, results=2**63))
    return stored_bytes(wire(status)) + stored_bytes(wire(room)) + len(',"phases":[]')


def _fitting(phases: list[PhaseResult], room: int) -> list[PhaseResult]:
    first = len(phases)
    while first > max(0, len(phases) - budget.MAX_PHASES):
        room -= stored_bytes(phases[first - 1].model_dump(mode="json", by_alias=True)) + 1
        if room < 0:
            break
        first -= 1
    return phases[first:]


def _names(status: FineTuneJobStatus) -> int:
    found = {name for phase in status.phases for name in phase.metrics}
    return len(found | {*(status.progress.metrics if status.progress else ())})


def _finite(phase: PhaseResult) -> PhaseResult:
    # JSON has no infinity: a trainer of somebody's own must not keep the status from being written.
    return phase if phase.seconds < float("inf") else phase.model_copy(update={"seconds": 0.0})


def _condition(found: Condition) -> Condition:
    return found.model_copy(update={"message": clipped(found.message, MAX_MESSAGE_BYTES)})


def _waiting(pod: WaitingPod) -> WaitingPod:
    return pod.model_copy(update={"message": clipped(pod.message, MAX_WAITING_BYTES)})


def _failure(failure: Failure | None) -> Failure | None:
    if failure is None:
        return None
    tail = failure.log_tail and clipped(failure.log_tail[::-1], MAX_FAILURE_BYTES)[::-1]
    return failure.model_copy(update={"message": clipped(failure.message, MAX_FAILURE_BYTES), "log_tail": tail})


def clipped(text: str, max_bytes: int) -> str:
    """Return the beginning of a text, with a mark where it is cut, in so many bytes of JSON."""
    if len(text) * _WIDEST <= max_bytes or stored_bytes(text) - 2 <= max_bytes:
        return text
    room = max_bytes - len(_MARK.encode())
    for index, character in enumerate(text):
        room -= stored_bytes(character) - 2
        if room < 0:
            return text[:index] + _MARK
    return text
