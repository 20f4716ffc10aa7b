"""The course of a training in a few points, kept in the status: it outlives pods and their logs. Pure.

A point is added when the step has come into another part of the training. The status is written at such a moment anyway,
so that the history costs no write of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from unfreeze_api.contracts.progress import ProgressInfo
from unfreeze_api.contracts.status import HistoryPoint

PARTS = 32


def extended(old: Sequence[HistoryPoint], progress: ProgressInfo | None, metric: str) -> list[HistoryPoint]:
    """Return the history with the present moment, at most one point for each part and one for the last step.

    Parameters
    ----------
    old
        The points so far.
    progress
        How far the training is. Points beyond its step are of an attempt that was given up, and go.
    metric
        Name of the metric whose values are kept.
    """
    if progress is None or not progress.total_steps:
        return list(old)

    def part(step: int) -> int:
        return min(step, progress.total_steps) * PARTS // progress.total_steps

    now = HistoryPoint(step=progress.step, loss=progress.loss, metric=progress.metrics.get(metric))
    points = [*(point for point in old if point.step < now.step), *([now] if now.step else [])]
    # The first of a part stays, so that the history rests until the next; with another number of steps the parts are
    # others.
    return sorted({part(point.step): point for point in reversed(points)}.values(), key=lambda point: point.step)
