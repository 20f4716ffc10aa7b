"""What an evaluation decides: whether it is the best one, and whether its phase is over. A pure function.

It is asked where all ranks hold the same numbers, so each of them decides alike, and none has to ask another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from unfreeze_api.spec.strategy import PlateauSpec
from unfreeze_api.spec.training import EarlyStoppingSpec
from unfreeze_api.tasks.base import Metric


@dataclass(frozen=True)
class History:
    """What the evaluations before have left behind."""

    best: float | None = None
    """Best value of the metric in the run; None before the first evaluation, as below."""
    phase_best: float | None = None
    """Best value in this phase; a better one by less than `min_delta` does not count."""
    bad_evaluations: int = 0
    """Evaluations in this phase since then."""
    best_beyond: float = 0.0
    """`beyond` of the best one."""


@dataclass(frozen=True)
class Decision:
    """What follows from an evaluation."""

    best: bool
    """Whether it is the best of the run."""
    end: bool
    """Whether its phase is over."""
    history: History
    """What the next evaluation is compared with."""
    why: str = ""
    """Why the phase is over before its last step; nothing where it is not."""


def decide(
    history: History,
    metric: Metric,
    value: float,
    *,
    stopping: PlateauSpec | EarlyStoppingSpec | None,
    last: bool,
    beyond: float = 0.0,
) -> Decision:
    """Compare an evaluation with those before it.

    Parameters
    ----------
    metric
        That is compared; whatever is no number is worse than any that is.
    value
        Its value now.
    stopping
        Ends the phase when it no longer improves.
    last
        Whether this is the phase's last step.
    beyond
        What the model has lost of what its base could, where that is more than it may; 0 within that. An evaluation within it is better
        than any beyond, and the first beyond ends the phase.
    """
    bad, phase_best = history.bad_evaluations + 1, history.phase_best
    if phase_best is None or _better(metric, value, phase_best, stopping.min_delta if stopping else 0.0):
        bad, phase_best = 0, value
    best = history.best is None or (
        _better(metric, value, history.best) if beyond == history.best_beyond else beyond < history.best_beyond
    )
    why = ""
    if stopping is not None and bad >= stopping.patience and not last:
        by = f" by more than {stopping.min_delta:.4g}" if stopping.min_delta else ""
        why = f"evaluations in a row that have not improved {metric.name} {phase_best:.4g}{by}: {bad}"
    if beyond and not last:
        why = f"what is lost of what the base could is {beyond:.3g} by the first gauge, more than the budget of evidence.forgetting"
    left = History(value if best else history.best, phase_best, bad, beyond if best else history.best_beyond)
    return Decision(best=best, end=last or bool(why), history=left, why=why)


def _better(metric: Metric, value: float, than: float, by: float = 0.0) -> bool:
    if math.isnan(value):
        return False
    return math.isnan(than) or metric.improvement(value, than) > by
