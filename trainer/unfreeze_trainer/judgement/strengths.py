"""Which strength of a head's regularisation is taken, and what is said of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unfreeze_api.contracts.decision import Decision, Evidence

_PATIENCE, _LITTLE = 2, 1e-3
"""Strengths without a gain that end the search, and the share of the strongest one's loss that counts as none."""
CONVERGED = 1e-4
"""Largest number in the scaled gradient of a head that is as good as the best one."""


@dataclass(frozen=True)
class Tried:
    """A strength, and the mean loss of the samples of each fold by a head that was found on the others."""

    strength: float
    folds: Sequence[float]
    loss: float
    """Mean over the samples of all folds."""


def best_of(tried: Sequence[Tried]) -> int:
    """Return the place of the lowest loss; of equal ones the first, which is the strongest."""
    return min(range(len(tried)), key=lambda place: (not math.isfinite(tried[place].loss), tried[place].loss))


def is_over(tried: Sequence[Tried]) -> bool:
    """Return whether the newest strengths have brought nothing that counts: what weaker ones bring is less still."""
    if len(tried) <= _PATIENCE:
        return False
    before = min(one.loss for one in tried[:-_PATIENCE])
    return before - min(one.loss for one in tried[-_PATIENCE:]) <= _LITTLE * tried[0].loss


def chosen(
    tried: Sequence[Tried], *, samples: int, iterations: int, gradient: float, seconds: float, step: int
) -> Decision:
    """Return the decision for the best strength.

    Parameters
    ----------
    tried
        From the strongest; at least one.
    samples
        That the head was found on.
    iterations, gradient
        Of the search for the head, and the largest number in its scaled gradient at the end.
    seconds
        What features and searches took.
    step
        That the run is at.
    """
    place = best_of(tried)
    best = tried[place]
    others = sorted((one for one in tried if one is not best), key=lambda one: one.loss)
    more = "" if gradient <= CONVERGED else ". It has not converged"
    end = "strongest" if place == 0 else "weakest" if place == len(tried) - 1 else ""
    return Decision(
        type="Solver",
        answer=f"{best.strength:.3g}",
        question="How strongly is the head regularised?",
        message=f"strength {best.strength:.3g} has the lowest loss on held-out folds, {best.loss:.4g}; the head was found on"
        f" {samples:,} samples in {iterations} iterations"
        + (f". It is the {end} of those tried" if end else "")
        + more,
        step=step,
        evidence=[
            *(Evidence(name=f"held-out loss with strength {one.strength:.3g}", value=one.loss) for one in tried),
            *(
                Evidence(name=f"held-out loss of fold {number} with strength {best.strength:.3g}", value=loss)
                for number, loss in enumerate(best.folds, 1)
            ),
            Evidence(name="largest number in the scaled gradient at the end", value=gradient),
        ],
        seconds=seconds,
        otherwise=f"folds on which another strength has a lower loss: the next is {others[0].strength:.3g} with"
        f" {others[0].loss:.4g}"
        if others
        else "",
        alternative="solver Gradient: steps at a learning rate, for training.epochs",
    )
