"""Whether an intermediate stage helps: by what the features of the model with and without it tell of the job's own rows. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

from unfreeze_api.contracts.decision import Decision, Evidence

SURE = 0.9
"""Probability of a gain at which a stage is kept: there is no need for what is no better than nothing."""
_LEVEL = NormalDist().inv_cdf(0.975)
"""Standard errors of an interval of 95 %."""


@dataclass(frozen=True)
class Probed:
    """What the features of two models tell of the same rows, each row left out in its turn."""

    with_stage: float
    """Score of the nearest neighbours: share of the rows that they get right, or of the variance that they explain."""
    without: float
    low: float
    """Lower end of the 95 % interval of the gain."""
    high: float
    rows: int
    seconds: float
    """That the comparison took."""

    @property
    def gain(self) -> float:
        """By how much the features with the stage tell more."""
        return self.with_stage - self.without

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
    said = (
        f"the features tell {probed.with_stage:.3f} of {probed.rows} training rows by their neighbours with it and"
        f" {probed.without:.3f} without it, {change}"
    )
    sure = f"with probability {probed.probability:.2f}"
    message = f"stage {name} helps, {sure}: {said}" if helps else f"stage {name} is dropped, it helps {sure}: {said}"
    return Decision(
        type="Stage",
        answer="Yes" if helps else "No",
        question=f"Does the intermediate stage {name} help?",
        message=message,
        step=step,
        evidence=[
            Evidence(name=f"gain by {name}", value=probed.gain, low=probed.low, high=probed.high),
            Evidence(name=f"knn with {name}", value=probed.with_stage),
            Evidence(name=f"knn without {name}", value=probed.without),
            Evidence(name=f"seconds of {name}", value=seconds),
        ],
        seconds=probed.seconds,
        otherwise=f"a gain whose probability is {'below' if helps else 'at least'} {SURE}",
        alternative="keep, whatever the rows say" + ("" if helps else ", which would start from those features"),
    )
