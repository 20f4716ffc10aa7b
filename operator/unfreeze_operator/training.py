"""What the leader told about the training, put together: its answers to /progress, its last words, the old status."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unfreeze_api.durations import duration
from unfreeze_api.progress import (
    CheckpointInfo,
    PhaseResult,
    Progress,
    ProgressInfo,
    Recovery,
    TerminationMessage,
)
from unfreeze_api.status import FineTuneJobStatus, Summary
from unfreeze_operator.views import PodView


@dataclass(frozen=True, slots=True)
class Training:
    """The part of the status that is about the training."""

    progress: ProgressInfo | None
    checkpoint: CheckpointInfo | None
    phases: list[PhaseResult]
    results: dict[str, float]
    in_place_restarts: int
    """As the leader at hand counts them."""
    recovery: Recovery | None = None
    """As the leader at hand told it; what an earlier one told stands in a condition."""


def leader(pods: Sequence[PodView]) -> PodView | None:
    """Return the newest pod of index 0."""
    return next((pod for pod in reversed(pods) if pod.index == 0), None)


def gather(old: FineTuneJobStatus, last: PodView | None, progress: Progress | None) -> Training:
    """Return what is known about the training.

    Parameters
    ----------
    old
        The status as it was written last: what stands there stays until the leader says something newer.
    last
        The newest pod that led the job, if there is any.
    progress
        The newest answer of the leader at hand.
    """
    words = TerminationMessage.from_termination_log(last.message) if last is not None and not last.live else None
    told = words.progress if words is not None and words.progress is not None else progress
    if told is None:
        checkpoint = (words.checkpoint if words is not None else None) or old.checkpoint
        return Training(old.progress, checkpoint, old.phases, old.results, 0)
    # A leader that has just started, after a suspend or a crash, knows less than the status does.
    fresh = told.state == "Starting" and told.step == 0 and old.progress is not None
    return Training(
        progress=old.progress if fresh else _finite_info(told.info()),
        checkpoint=told.checkpoint or (words.checkpoint if words is not None else None) or old.checkpoint,
        phases=_merged(old.phases, told.phases),
        results=_finite(told.results) or old.results,
        in_place_restarts=told.restarts,
        recovery=told.recovery,
    )


def at_rest(progress: ProgressInfo | None) -> ProgressInfo | None:
    """Return the progress of a job that does not run: speed and time left have no meaning."""
    return progress and progress.model_copy(update={"samples_per_second": None, "eta_seconds": None})


def summarize(training: Training, metric: str) -> Summary | None:
    """Return the texts for the columns of kubectl get."""
    progress = training.progress
    if progress is None:
        return None
    part = f" ({progress.phase_index + 1}/{progress.phase_count})" if progress.phase_count > 1 else ""
    found = training.results.get(f"test.{metric}", progress.metrics.get(metric))
    return Summary(
        progress=f"{progress.percent}%{part}",
        metric=f"{metric} {found:.3f}" if found is not None else "",
        eta=duration(progress.eta_seconds) if progress.eta_seconds is not None else "",
        checkpoint=str(training.checkpoint.step) if training.checkpoint else "",
    )


def _merged(old: list[PhaseResult], new: list[PhaseResult]) -> list[PhaseResult]:
    """Return the longer list; what a short termination message had to leave out comes from the old one."""
    if len(new) < len(old):
        return old
    known = {phase.name: phase.metrics for phase in old}
    return [phase.model_copy(update={"metrics": _finite(phase.metrics) or known.get(phase.name, {})}) for phase in new]


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    # JSON has no NaN: a training that diverged must not keep its status from being written.
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _finite_info(info: ProgressInfo) -> ProgressInfo:
    update: dict[str, object] = {"metrics": _finite(info.metrics)}
    for field in ("epoch", "loss", "samples_per_second"):
        value = getattr(info, field)
        if value is not None and not math.isfinite(value):
            update[field] = 0.0 if field == "epoch" else None
    return info.model_copy(update=update)
