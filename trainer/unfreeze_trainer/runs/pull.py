"""How strongly weights are pulled to the base's, steered by what is lost. Pure.

Notes
-----
L2-SP (Li et al. 2018, arXiv 1802.01483) adds the squared distance to the pretrained weights to the loss. Here the pull is decoupled from
the gradient, as AdamW's decay is (Loshchilov and Hutter 2017, arXiv 1711.05101): Adam would divide it by the size of the gradients, and
its strength would say nothing of how far the weights may go.
"""

from __future__ import annotations

import math

from pydantic import BaseModel

AIM = 0.8
"""Share of the budget that is aimed at: what a pull brings about is seen at the next look alone."""
LOOKS = 16
"""At the model in the course of the training, at least, beside those at evaluations."""
MOST = 0.5
"""Of the way back in a step, at most."""
_GAIN = 0.5


def steps_between(steps: int, evaluate_every: int) -> int:
    """Return after how many steps the model is looked at, where so many train weights below the head."""
    return max(1, min(evaluate_every, steps // LOOKS))


class Pull(BaseModel):
    """The pull of a phase, a proportional and integral controller of the logarithm of what is lost."""

    strength: float = 0.0
    """Share of the way back to the base's weights that a step takes, those with the highest learning rate at its peak."""
    trend: float = 0.0
    """What stays of it when no more is lost than is aimed at."""
    step: int = 0
    """Of the newest look, or the phase's first."""

    def after(self, lost: float, budget: float, step: int) -> Pull:
        """Return the pull after a look at a step; the more is lost, the stronger it is."""
        steps = max(1, step - self.step)
        excess = 1.0
        if math.isfinite(lost):
            excess = max(-1.0, min(1.0, math.log(max(lost / (AIM * budget), 1e-9))))
        trend = max(0.0, min(MOST, self.trend + _GAIN * excess / steps))
        return Pull(strength=min(MOST, trend + max(0.0, excess) / steps), trend=trend, step=step)


def share_kept(lost: float, budget: float) -> float:
    """Return how much of the distance to the base is to be kept so that no more is lost than aimed at, if it grows with the distance."""
    return max(0.0, min(0.9, AIM * budget / lost)) if math.isfinite(lost) and lost > 0 else 0.0
