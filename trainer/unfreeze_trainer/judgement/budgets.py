"""When a budget ends a training: what is kept for what comes after the last step. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unfreeze_api.contracts.decision import Decision, Evidence
from unfreeze_api.contracts.progress import PhaseResult
from unfreeze_api.contracts.resolved import ResolvedBudget

_HOUR, _MINUTE = 3600.0, 60.0
_DIGITS = 4
_CENTS = 0.1
"""Money, from which on two digits behind the point are enough."""


@dataclass(frozen=True)
class Reserve:
    """Seconds that are kept for what comes after the last step."""

    evaluation: float = 0.0
    """On the validation samples; apart from the rest, since it may be done already."""
    checkpoint: float = 0.0
    test: float = 0.0
    export: float = 0.0
    """Loading the model anew, writing it, loading it in a fresh process."""
    guard: float = 0.0
    """What evidence.forgetting measures and mixes at the end."""
    scratch: float = 0.0
    """The training of random weights."""
    saying: float = 0.0
    """What training.evaluate.generate has the model say: at the end of the phase, and of the best weights."""

    @property
    def after(self) -> float:
        """All of it but the evaluation."""
        return self.checkpoint + self.test + self.export + self.guard + self.scratch + self.saying


def seconds_of(budget: ResolvedBudget) -> float:
    """Return how long the job may run by its budget."""
    assert budget.per_hour  # refused otherwise
    return budget.limit / budget.per_hour * _HOUR


def is_over(spent: float, ahead: float, reserve: float, limit: float) -> bool:
    """Return whether what is ahead before the next look, and what is kept, no longer have room; all in seconds."""
    return spent + ahead + reserve > limit


def told(budget: ResolvedBudget, seconds: float) -> str:
    """Return seconds of the job in the unit of its budget, like `1.25 accelerator hours`."""
    assert budget.per_hour
    return _amount(budget, seconds / _HOUR * budget.per_hour)


def _amount(budget: ResolvedBudget, amount: float) -> str:
    if budget.unit == "money":
        digits = f"{amount:,.2f}" if amount >= _CENTS or not amount else f"{amount:.2g}"
        return f"{digits} {budget.currency or 'of money'}"
    if budget.unit == "hours" and amount < 1:
        minutes = amount * _MINUTE
        return f"{minutes:.3g} minutes" if minutes >= 1 else f"{amount * _HOUR:.3g} seconds"
    return f"{amount:,.0f} {budget.unit}" if amount >= 10**_DIGITS else f"{amount:.{_DIGITS}g} {budget.unit}"


def too_small(budget: ResolvedBudget, spent: float, start: float, reserve: Reserve) -> str:
    """Return why a job cannot begin within its budget, with the figure that would do; times in seconds.

    Parameters
    ----------
    start
        What this start has taken of what is spent: the next one takes it again.
    """
    assert budget.per_hour
    least = spent + start + reserve.evaluation + reserve.after
    need = 1.1 * least / _HOUR * budget.per_hour
    return (
        f"spec.runPolicy.budget of {_amount(budget, budget.limit)} has no room for a model: {told(budget, spent)} are spent before"
        f" the first step, and an evaluation, the test data, a checkpoint and the export take about"
        f" {told(budget, reserve.evaluation + reserve.after)} more. Set {_amount(budget, _up(need))} at least: another start takes its time"
        " again, and what is spent counts"
    )


def _up(amount: float) -> float:
    """Return an amount rounded up to two digits."""
    if amount <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(amount)) - 1)
    return math.ceil(amount / unit - 1e-9) * unit


def decided(
    budget: ResolvedBudget,
    spent: float,
    *,
    step: int,
    steps_left: int,
    reserve: Reserve | None,
    before: float,
    phases: Sequence[PhaseResult],
    last: bool,
) -> Decision:
    """Return what a budget has done to a training.

    Parameters
    ----------
    spent
        Seconds so far, in all starts.
    step, steps_left
        That the training ended at, and what of its plan was not taken because of the budget.
    reserve
        What was kept when it ended; None where it did not end for its sake.
    before
        Seconds of this start before its first phase.
    phases
        That have ended.
    last
        Whether nothing comes any more: what is spent is what the job took.
    """
    limit = seconds_of(budget)
    taken = f"{told(budget, spent)} of {_amount(budget, budget.limit)}"
    cut = steps_left > 0
    beyond = last and spent > limit
    answer = "Exceeded" if beyond else "Ended" if cut else "Kept"
    ended = f"the training ended at step {step:,}, {steps_left:,} before its last"
    message = {
        (True, True): f"{taken} are spent, {ended}" if cut else f"{taken} are spent",
        (True, False): f"{taken} are spent; {ended}" if cut else f"{taken} are spent, the training came to its end",
        (False, False): f"{taken} are spent, and the rest is kept for evaluation and export: {ended}",
    }[last, beyond]
    kept = [] if reserve is None else [
        Evidence(name="kept for an evaluation, seconds", value=round(reserve.evaluation, 1)),
        Evidence(name="kept for checkpoint, test data and export, seconds", value=round(reserve.after, 1)),
    ]  # fmt: skip
    return Decision(
        type="Budget",
        answer=answer,
        question="Does the training end within runPolicy.budget?",
        message=message,
        step=step,
        warning=True if beyond else None,  # to end in time is what was asked for
        evidence=[
            Evidence(name="spent, seconds", value=round(spent, 1)),
            Evidence(name="budget, seconds", value=round(limit, 1)),
            Evidence(name="spent in this start before the first phase, seconds", value=round(before, 1)),
            *(Evidence(name=f"phase {one.name}, seconds", value=round(one.seconds, 1)) for one in phases),
            *kept,
        ],
        otherwise="a larger budget, or fewer epochs" if cut else "a smaller budget",
        alternative="to train to the last step, whatever it costs",
    )
