"""What the leader reported, put together: its answers to /progress, its termination message, the old status."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from unfreeze_api.contracts import budget
from unfreeze_api.contracts.progress import (
    CheckpointInfo,
    DecisionInfo,
    PhaseResult,
    Progress,
    ProgressInfo,
    Recovery,
    TerminationMessage,
)
from unfreeze_api.contracts.status import FineTuneJobStatus, Omitted, Summary
from unfreeze_api.grammar.amounts import figure
from unfreeze_api.grammar.durations import duration
from unfreeze_operator.objects.views import PodView

MAX_UNSEEN = 2**20
"""Phases that are believed to have ended before anybody heard of them."""


@dataclass(frozen=True, slots=True)
class Training:
    """The part of the status that is about the training."""

    progress: ProgressInfo | None
    checkpoint: CheckpointInfo | None
    phases: list[PhaseResult]
    results: dict[str, float]
    in_place_restarts: int
    """As the leader at hand counts them."""
    decisions: list[DecisionInfo]
    recovery: Recovery | None = None
    """As the leader at hand reported it; what an earlier one reported stands in a condition."""
    omitted: Omitted | None = None
    """What is not in `phases`, and what was left out before."""
    outcome: str = ""
    """Of a job that has succeeded, how good its model is, in a sentence of the leader's."""


def leader(pods: Sequence[PodView]) -> PodView | None:
    """Return the newest pod of index 0."""
    return next((pod for pod in reversed(pods) if pod.index == 0), None)


def earlier_leaders(pods: Sequence[PodView], last: PodView | None) -> list[PodView]:
    """Return the pods of index 0 before the last one that have ended with a message."""
    return [pod for pod in pods if pod.index == 0 and pod.termination_message and (last is None or pod.uid != last.uid)]


def gather(
    old: FineTuneJobStatus, last: PodView | None, progress: Progress | None, earlier: Sequence[PodView] = ()
) -> Training:
    """Return what is known about the training.

    Parameters
    ----------
    old
        The status as it was written last: what stands there stays until the leader says something newer.
    last
        The newest pod that led the job, if there is any.
    progress
        The newest answer of the leader at hand.
    earlier
        Leaders that have ended. One that was taken away may be replaced before anybody has looked at what it said: of its
        checkpoint the next one says nothing before it runs.
    """
    words = TerminationMessage.from_termination_log(last.termination_message) if last is not None else None
    outcome = words.message if words is not None and words.outcome == "Succeeded" else ""
    reported = words.progress if words is not None and words.progress is not None else progress
    kept = _kept(old, earlier, reported)
    if reported is None:
        checkpoint = (words.checkpoint if words is not None else None) or kept
        return Training(
            old.progress, checkpoint, old.phases, old.results, 0, old.decisions, omitted=old.omitted, outcome=outcome
        )
    # A leader that has just started, after a suspend or a crash, knows less than the status does.
    fresh = reported.activity == "Starting" and reported.step == 0 and old.progress is not None
    phases, before = _merged(old.phases, reported.phases)
    omitted = old.omitted or Omitted()
    left_out = omitted.phases - before if old.phases else 0
    # A leader reports its newest phases alone: how many there were its index says.
    unseen = min(reported.phase_index - len(phases), MAX_UNSEEN)
    over = max(0, len(phases) - budget.MAX_PHASES)
    return Training(
        progress=_begun(old.progress, reported) if fresh else _finite_info(reported.info()),
        checkpoint=reported.checkpoint or (words.checkpoint if words is not None else None) or kept,
        phases=phases[over:],
        results=_finite(reported.results) or old.results,
        in_place_restarts=reported.restarts,
        decisions=_decided(old.decisions, reported.decisions or ()),
        recovery=reported.recovery,
        omitted=omitted.model_copy(update={"phases": max(0, left_out, unseen) + over}),
        outcome=outcome,
    )


def _kept(old: FineTuneJobStatus, earlier: Sequence[PodView], reported: Progress | None) -> CheckpointInfo | None:
    """Return the newest checkpoint before the leader at hand wrote one: none that a later leader has found broken."""
    if reported is not None and reported.recovery is not None:
        return old.checkpoint
    broken = (one for one in old.conditions if (one.type, one.status) == ("CheckpointBroken", "True"))
    found = next((one.last_transition_time for one in broken), None)
    after = [pod for pod in earlier if found is None or (pod.finished or pod.created) >= found]
    return _newest([old.checkpoint, *(_said(pod) for pod in after)])


def _said(pod: PodView) -> CheckpointInfo | None:
    words = TerminationMessage.from_termination_log(pod.termination_message)
    return words.checkpoint if words is not None else None


def _newest(checkpoints: Sequence[CheckpointInfo | None]) -> CheckpointInfo | None:
    found = (one for one in checkpoints if one is not None)
    return max(found, key=lambda one: (one.time, one.step), default=None)


def _begun(known: ProgressInfo | None, reported: Progress) -> ProgressInfo | None:
    """Return what is known of a training whose leader has just started, with what that fetches."""
    fetched = {"fetched_bytes": reported.fetched_bytes, "total_bytes": reported.total_bytes}
    return known and known.model_copy(update=fetched)


def at_rest(progress: ProgressInfo | None) -> ProgressInfo | None:
    """Return the progress of a job that does not run: speed, time left and what is fetched have no meaning."""
    return progress and progress.model_copy(
        update={"samples_per_second": None, "eta_seconds": None, "fetched_bytes": None, "total_bytes": None}
    )


def summarize(training: Training, metric: str) -> Summary | None:
    """Return the texts for the columns of kubectl get."""
    progress = training.progress
    if progress is None:
        return None
    part = f" ({progress.phase_index + 1}/{progress.phase_count})" if progress.phase_count > 1 else ""
    tested = training.results.get(f"test.{metric}")
    if progress.stage:
        part += f" stage {progress.stage.partition(':')[0]}"
    found, where = (progress.metrics.get(metric), "") if tested is None else (tested, " (test)")
    return Summary(
        progress=progress.fetching or f"{progress.percent}%{part}",
        metric=f"{metric} {figure(found)}{where}" if found is not None else "",
        eta=duration(progress.eta_seconds) if progress.eta_seconds is not None else "",
        checkpoint=str(training.checkpoint.step) if training.checkpoint else "",
    )


def _merged(known: Sequence[PhaseResult], reported: Sequence[PhaseResult]) -> tuple[list[PhaseResult], int]:
    """Return the known phases with those that are reported, and how many of them come before the first known one.

    What is known of a phase stays, but for the newest that is reported: a training that went back ends that one again.
    What a short termination message had to leave out, old phases or metrics, comes from what is known.
    """
    names = [budget.block(phase.name) for phase in reported]
    if not known or not reported:
        return [*known, *reported], 0
    if known[0].name in names:
        before = names.index(known[0].name)
        start = 0
    else:
        before, start = 0, next((at for at, phase in enumerate(known) if phase.name == names[0]), len(known))
    out = [*reported[:before], *known[:start]]
    for old, new in zip_longest(known[start:], reported[before:]):
        if old is None or new is None:
            out.append(new or old)
        else:
            kept, other = (new, old) if new is reported[-1] else (old, new)
            out.append(kept.model_copy(update={"metrics": _finite(kept.metrics) or other.metrics}))
    return out, before


def _decided(known: Sequence[DecisionInfo], reported: Sequence[DecisionInfo]) -> list[DecisionInfo]:
    """Return the newest decisions: what a leader no longer reports, after a step back, stays until it decides anew."""
    found = {one.key: one for one in (*known, *reported)}
    return [found[key] for key in sorted(found)][-budget.MAX_DECISIONS :]


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
