"""The end of a phase as a decision for people: before its last step, which `training/decide.py` has taken, or too early. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from unfreeze_api.contracts.decision import Decision, Evidence
from unfreeze_api.grammar.amounts import figure

_FEWEST = 3
"""Evaluations of a phase that tell how it went."""
_APART = 0.75
"""Share of the validation loss that the training loss has come to where a model begins to learn its samples by heart."""
_WORTH = 0.1
"""Share of the validation loss that as many steps more have to promise."""


def ended_early(
    phase: str, *, step: int, steps_left: int, metric: str, best: float | None, bad_evaluations: int, why: str
) -> Decision:
    """Return why a phase is over.

    Parameters
    ----------
    phase
        Its name.
    step, steps_left
        Of the plan: where it ended, and what of it was not taken.
    metric, best
        That no longer improved, and its best value in the phase.
    bad_evaluations
        Since then.
    why
        In words.
    """
    return Decision(
        type="EarlyStopping",
        answer="No",
        question=f"Is it worth training phase {phase} to its last step?",
        message=f"phase {phase} ends at step {step:,}, {steps_left:,} before its last: {why}",
        step=step,
        evidence=[
            Evidence(name=f"best validation {metric} of the phase", value=best),
            Evidence(name="evaluations since then", value=bad_evaluations),
        ],
        otherwise=f"a better {metric} in one of the last {bad_evaluations} evaluations",
        alternative=f"to take the other {steps_left:,} steps, whatever the evaluations say",
    )


@dataclass(frozen=True)
class Evaluated:
    """An evaluation of a phase."""

    step: int
    rate: float
    """The highest learning rate of a block at that step."""
    training_loss: float
    """Mean of the steps since the one before."""
    loss: float
    """On the validation data."""


def too_short(found: Sequence[Evaluated], *, first_step: int, metric: str, searched: bool) -> Decision | None:
    """Return that a training has ended before the model has learned what there is; None where that does not show.

    It shows where the validation loss was at its lowest at the last step, the training loss was not far below it, and the last third of the
    evaluations fell by so much for each unit of the learning rate that as many steps again, at the same rates, promise a tenth less. That
    is a line where losses bend: a promise, and no forecast.

    Parameters
    ----------
    found
        Evaluations of the last phase, which has come to its last step with the best metric there.
    first_step
        Of that phase.
    metric
        The job's.
    searched
        Whether the learning rates were found by a range test, or lowered since higher ones destroy the model.
    """
    if len(found) < _FEWEST:
        return None
    last = found[-1]
    begin = Evaluated(first_step, found[0].rate, found[0].training_loss, found[0].loss)
    moved = [(one.rate + other.rate) / 2 * (other.step - one.step) for one, other in pairwise([begin, *found])]
    late = len(found) // 3
    fell = found[-1 - late].loss - last.loss
    if last.loss > min(one.loss for one in found) or last.training_loss < _APART * last.loss or not sum(moved[-late:]):
        return None
    promised = fell / sum(moved[-late:]) * sum(moved)
    if promised < _WORTH * last.loss:
        return None
    instead = "" if searched else ", or with higher rates, which spec.strategy.learningRate.rates: Auto finds"
    return Decision(
        type="TooShort",
        answer="Yes",
        question="Has the training ended before the model has learned what there is to learn?",
        message=f"the training was short: its last evaluation is its best one, the validation loss still fell from {figure(found[-1 - late].loss)} to"
        f" {figure(last.loss)} at the end, and the training loss, {figure(last.training_loss)}, is not far below it: train for more epochs{instead}",
        step=last.step,
        warning=True,
        evidence=[
            Evidence(name="validation loss at the end", value=last.loss),
            Evidence(name="training loss at the end", value=last.training_loss),
            Evidence(name="fall of the validation loss that as many steps more promise", value=promised),
        ],
        otherwise=f"a lower validation loss or a better {metric} before the last step, a training loss below {_APART:.0%} of it, or one that no longer falls".replace(
            "%", " %"
        ),
        alternative="the model as it is",
    )
