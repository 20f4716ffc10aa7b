"""The course of the learning rate: what every peak rate is multiplied by at a step."""

from __future__ import annotations

import math

from unfreeze_api.contracts.resolved import LearningRate
from unfreeze_trainer.phases.compile import Phase

_DIV_FACTOR, _FINAL_DIV_FACTOR = 25, 1e4  # torch's OneCycleLR
_RATIO = 32  # Howard and Ruder 2018, section 3.2


def rate_factor(learning_rate: LearningRate, phase: Phase, step: int, total_steps: int) -> float:
    """Return what every peak learning rate is multiplied by at one step of a phase.

    Parameters
    ----------
    learning_rate
        Schedule, scope, warm-up.
    phase
        That the step belongs to.
    step
        From 0, over the whole job.
    total_steps
        Optimizer steps of the whole job.
    """
    inside = step - phase.first_step
    if learning_rate.scope == "Phase":
        return schedule_factor(learning_rate, inside, phase.steps)
    factor = schedule_factor(learning_rate, step, total_steps)
    if phase.index and inside < learning_rate.rewarm_steps:
        factor *= (inside + 1) / learning_rate.rewarm_steps
    return factor


def schedule_factor(learning_rate: LearningRate, step: int, total_steps: int) -> float:
    """Return the factor at one step of a course.

    Constant, Linear and Cosine (half a cosine: Loshchilov and Hutter 2016, arXiv 1608.03983) come after a linear rise,
    and no step has rate 0: the rise ends at its last step and the fall would reach 0 one step after the course.
    OneCycle is torch's OneCycleLR with cosine annealing (Smith 2018, arXiv 1803.09820), without its cycle of momentum.
    SlantedTriangular is Howard and Ruder's (2018, arXiv 1801.06146, equation 3); where its cut is rounded down, the
    fall still ends at the last step, while the paper's formula would go below 0.

    Parameters
    ----------
    learning_rate
        Schedule and warm-up.
    step
        From 0.
    total_steps
        Steps of the whole course.
    """
    match learning_rate.schedule:
        case "OneCycle":
            return _one_cycle(step, total_steps, learning_rate.warmup_ratio)
        case "SlantedTriangular":
            return _slanted_triangular(step, total_steps, learning_rate.warmup_ratio)
    warmup = min(round(learning_rate.warmup_ratio * total_steps), total_steps - 1)
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    match learning_rate.schedule:
        case "Constant":
            return 1.0
        case "Linear":
            return 1.0 - done
        case "Cosine":
            return 0.5 * (1 + math.cos(math.pi * done))


def _one_cycle(step: int, total_steps: int, rise: float) -> float:
    start, end = 1 / _DIV_FACTOR, 1 / (_DIV_FACTOR * _FINAL_DIV_FACTOR)
    top = rise * total_steps - 1
    if top > 0 and step <= top:
        return _anneal(start, 1.0, step / top)
    top = max(top, 0.0)  # a course too short for a rise starts at its peak
    return _anneal(1.0, end, (step - top) / max(total_steps - 1 - top, 1))


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * min(share, 1.0)))


def _slanted_triangular(step: int, total_steps: int, cut_fraction: float) -> float:
    cut = math.floor(total_steps * cut_fraction)
    share = step / cut if step < cut else 1 - (step - cut) / max(total_steps - cut, 1)
    return (1 + share * (_RATIO - 1)) / _RATIO
