"""Whether an intermediate stage helps: by what the model with and without it tells of the job's own rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from unfreeze_api.contracts.decision import Decision, Evidence

SURE = 0.9
"""Probability of a gain at which a stage is kept: there is no need for what is no better than nothing."""
_LEVEL = NormalDist().inv_cdf(0.975)
"""Standard errors of an interval of 95 %."""


Figure = Literal["knn", "variance", "recallAt1", "loss"]
"""What two models are compared by. knn: the features of each row's nearest neighbours tell its label or number, each row left out in
its turn. variance: the share that they tell of what several labels, or numbers, vary by. recallAt1: the model finds what belongs to a row among all rows. loss: nats a token of the rows' texts."""
_SAID: Mapping[Figure, str] = {
    "knn": "the features tell {:.3f} of {} training rows by their neighbours with it and {:.3f} without it",
    "variance": "the features tell {:.3f} of the variance of {} training rows by their neighbours with it and {:.3f} without it",
    "recallAt1": "the model finds what belongs to it of {:.3f} of {} training rows with it and of {:.3f} without it",
    "loss": "the loss is {:.3f} nats a token on {} training rows with it and {:.3f} without it",
}


@dataclass(frozen=True)
class Probed:
    """What two models tell of the same rows."""

    with_stage: float
    """Of knn the share of the rows that are right."""
    without: float
    low: float
    """Lower end of the 95 % interval of the gain."""
    high: float
    rows: int
    seconds: float
    """That the comparison took."""
    figure: Figure = "knn"

    @classmethod
    def of_rows(
        cls,
        with_stage: np.ndarray,
        without: np.ndarray,
        *,
        units: np.ndarray,
        groups: np.ndarray,
        figure: Figure,
        seconds: float,
    ) -> Probed:
        """Return what rows tell, each paired with itself; the interval is that of a ratio over groups of rows.

        Parameters
        ----------
        with_stage, without
            Sum of a figure over the units of each row, float64 of shape (rows,).
        units
            Of each row.
        groups
            Of each row: those of one have a picture, a text or a clip in common, and are no independent witnesses.
        """
        total = units.sum()
        better = (without - with_stage) if figure == "loss" else (with_stage - without)
        gain = better.sum() / total
        _, which = np.unique(groups, return_inverse=True)
        count = int(which.max()) + 1
        # A witness alone says nothing of how far others would lie apart: as far as its gain, which keeps no stage.
        error = _LEVEL * abs(float(gain))
        if count > 1:
            spread = np.bincount(which, better - gain * units)
            error = _LEVEL * float(np.sqrt((spread**2).sum() * count / (count - 1))) / total
        shares = float(with_stage.sum() / total), float(without.sum() / total)
        return cls(*shares, float(gain - error), float(gain + error), len(units), seconds, figure)

    @property
    def gain(self) -> float:
        """By how much the model with the stage tells more; of a loss by how much it is lower."""
        change = self.with_stage - self.without
        return -change if self.figure == "loss" else change

    @property
    def probability(self) -> float:
        """How probably there is a gain, by the normal approximation of paired differences; 0 where there is no difference."""
        error = (self.high - self.low) / 2 / _LEVEL
        if error <= 0:
            return float(self.gain > 0)
        return NormalDist().cdf(self.gain / error)


def stage_helps(probed: Probed, *, name: str, step: int, seconds: float) -> Decision:
    """Return whether what follows starts from a stage's weights: Yes, or No, which drops it.

    Parameters
    ----------
    probed
        What was measured.
    name
        Of the stage.
    step
        Optimizer steps of all stages so far.
    seconds
        That the stage took.
    """
    helps = probed.probability >= SURE
    change = f"{probed.gain:+.3f} ({probed.low:+.3f} to {probed.high:+.3f})"
    said = f"{_SAID[probed.figure].format(probed.with_stage, probed.rows, probed.without)}, {change}"
    sure = f"with probability {probed.probability:.2f}"
    message = (
        f"stage {name} helps, {sure}: {said}"
        if helps
        else f"stage {name} is dropped, it helps {sure} where {SURE} is asked for: {said}"
    )
    return Decision(
        type="Stage",
        answer="Yes" if helps else "No",
        question=f"Does the intermediate stage {name} help?",
        message=message,
        step=step,
        evidence=[
            Evidence(name=f"gain by {name}", value=probed.gain, low=probed.low, high=probed.high),
            Evidence(name=f"{probed.figure} with {name}", value=probed.with_stage),
            Evidence(name=f"{probed.figure} without {name}", value=probed.without),
            Evidence(name=f"seconds of {name}", value=seconds),
        ],
        seconds=probed.seconds,
        otherwise=f"a gain whose probability is {'below' if helps else 'at least'} {SURE}",
        alternative="keep, whatever the rows say" + ("" if helps else ", which would start from its weights"),
    )
