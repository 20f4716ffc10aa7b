"""Learning rates by a range test (Smith 2015, arXiv 1506.01186): rates that rise step by step, and what the losses make of them. Pure.

A short test says little: what it reads off is a weighted mean, in logarithms, with the rate that would be taken without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unfreeze_api.contracts.decision import Decision, Evidence
from unfreeze_api.contracts.report import Rollback

SHARE, MIN_STEPS, MAX_STEPS = 0.05, 20, 200
"""Of the planned steps; at least and at most so many, for head and backbone together."""
SHORTEST = MIN_STEPS
"""Planned steps below which nothing is tried: the tests would take more than the training."""
_WITH_FORWARD = 4 / 3
"""What a step of a test counts: its batch is computed once more, forward alone, by the weights of before."""
DOWN, UP = 2.0, 500.0
"""How far below and above the rate that it starts from a test goes."""
BURST = 4.0
"""Times the best loss so far, in proportion to that of before: the test ends there."""
LEARNED = 0.02
"""Share of the loss that it must fall by, to say anything."""
HORIZON, _MOST_BELOW = 100, 10.0
"""The rate around which the loss fell is taken for so many planned steps; for more it is divided by the square root of their
multiple, at most by the second: what a rate moves weights by adds up, and errors of single batches do so by the square root."""
_BELOW_BURST = 30.0
"""The rate at which it burst, where it had not fallen before."""
_HALF = 2
"""Steps at which what was measured counts as much as what it started from."""
_PER_DECADE = 20
"""Rates that may be chosen: sums over other numbers of workers differ in their last digits, and the rate must not."""
NEAREST, FARTHEST, SURE = 10.0, 100.0, 0.8
"""How far below the head's a pretrained layer's rate stays, unless what was measured counts more than the third, from 9 steps on."""

WITH_BACKBONE = 0.1
"""Share of its rate that a new head trains with in the backbone's test: its own first steps at all of it, which no warm-up precedes, may
raise the loss by more than the backbone lowers it."""
KEPT = 0.05
"""Share of the numbers of a model that a test keeps beside it; where it changes more the base is loaded once more."""

Sight = Literal["Fell", "Burst", "Nothing"]


def steps_for(planned: int, *, tests: int) -> int:
    """Return how many steps each of the tests of a job takes at most, 0 where it is too short for any."""
    if planned < SHORTEST or not tests:
        return 0
    return int(min(MAX_STEPS, max(MIN_STEPS, int(SHARE * planned))) / tests / _WITH_FORWARD)


def ramp(prior: float, steps: int) -> list[float]:
    """Return the rates of a test, as many as steps, evenly spaced in logarithms."""
    low, span = prior / DOWN, DOWN * UP
    return [low * span ** (step / max(1, steps - 1)) for step in range(steps)]


@dataclass(frozen=True)
class Curve:
    """What a range test has seen."""

    part: str
    """Of the model: head or backbone."""
    prior: float
    """The rate that is taken without a test."""
    rates: list[float]
    """One after the other, each of one step."""
    losses: list[float]
    """Mean loss of the batch before each step, and of the next one after the last; may end with one that is not finite."""
    before: list[float]
    """Mean loss of the same batches by the weights of before: what differs between batches cancels out."""

    @property
    def shares(self) -> list[float]:
        """Each loss in proportion to that of before, the first one first."""
        return [loss / max(one, 1e-9) for loss, one in zip(self.losses, self.before, strict=True)]

    @property
    def over(self) -> bool:
        """Whether the newest loss has burst: nothing above its rate is tried."""
        newest = self.shares[-1]
        return not math.isfinite(newest) or newest > BURST * min([1.0, *filter(math.isfinite, self.shares)])

    @property
    def after(self) -> list[tuple[float, float]]:
        """Each rate with the loss after its step, in proportion to that of before."""
        return list(zip(self.rates, self.shares[1:], strict=False))


@dataclass(frozen=True)
class Chosen:
    """A rate, and why."""

    rate: float
    sight: Sight
    """What the test has seen."""
    at: float | None
    """The rate at which it has seen that."""
    weight: float
    """How much what was measured counts, from 0 to 1."""
    below: float
    """What `at` is divided by."""


def choose(curve: Curve, planned: int = HORIZON) -> Chosen:
    """Return the rate that a test speaks for; `planned` steps are to be taken with it."""
    after = curve.after
    weight = len(after) / (len(after) + _HALF)
    falls = [(rate, max(0.0, 1 - share)) for rate, share in after if math.isfinite(share)]
    sight: Sight
    if max((fall for _, fall in falls), default=0.0) > LEARNED:
        at, sight, below = _middle(falls), "Fell", min(_MOST_BELOW, math.sqrt(max(1.0, planned / HORIZON)))
    elif after and curve.over:
        at, sight, below = after[-1][0], "Burst", _BELOW_BURST
    else:
        return Chosen(curve.prior, "Nothing", None, 0.0, 1.0)
    rate = math.exp(weight * math.log(at / below) + (1 - weight) * math.log(curve.prior))
    return Chosen(rounded(rate), sight, at, weight, below)


def _middle(falls: list[tuple[float, float]]) -> float:
    """Return the mean of rates, in logarithms, weighed by how far the loss fell."""
    return math.exp(sum(fall * math.log(rate) for rate, fall in falls) / sum(fall for _, fall in falls))


def rounded(rate: float) -> float:
    """Return the nearest of the rates that may be chosen."""
    return float(f"{10 ** (round(_PER_DECADE * math.log10(rate)) / _PER_DECADE):.3g}")


def settle(found: Chosen, head: float, *, alike: bool) -> float:
    """Return the backbone's rate beside the head's: at most that, and 10 to 100 times below unless the test is long enough.

    Parameters
    ----------
    found
        Of the backbone.
    head
        The head's rate.
    alike
        Whether both have one rate without a test, as an adapter has.
    """
    surely = alike or (found.sight != "Nothing" and found.weight > SURE)
    low, high = (0.0, head) if surely else (head / FARTHEST, head / NEAREST)
    return float(f"{min(max(found.rate, low), high):.3g}")


def decided(
    found: list[tuple[Curve, Chosen]],
    *,
    head: float,
    backbone: float,
    before: tuple[float, float],
    planned: int,
    seconds: float,
) -> Decision:
    """Return the decision about the rates of a run.

    Parameters
    ----------
    found
        What each test has seen; empty where the training is too short for one.
    head, backbone
        The rates that are taken.
    before
        Those that are taken without looking at the data.
    planned
        Steps of the training; 0 where it takes none at any rate, as one whose head is solved.
    seconds
        That the tests took.
    """
    usual = f"head {before[0]:.3g}, backbone {before[1]:.3g}"
    taken = f"head {head:.3g}, backbone {backbone:.3g}"
    steps = sum(len(curve.losses) for curve, _ in found)
    evidence = [Evidence(name="steps of the range tests", value=steps), Evidence(name="planned steps", value=planned)]
    for curve, chosen in found:
        evidence += [
            Evidence(name=f"{curve.part}: loss before", value=curve.before[0]),
            Evidence(name=f"{curve.part}: learning rate it starts from", value=curve.prior),
            Evidence(name=f"{curve.part}: learning rate at which the loss {_SAYS[chosen.sight]}", value=chosen.at),
            Evidence(name=f"{curve.part}: weight of what was measured", value=round(chosen.weight, 3)),
        ]
        evidence += [
            Evidence(
                name=f"{curve.part}: loss after a step at {rate:.2g}, in proportion to before",
                value=loss if math.isfinite(loss) else None,
            )
            for rate, loss in _thinned(curve.after)
        ]
    if not planned:
        message = f"{taken}, which nothing uses: the head is solved, and nothing trains by steps"
    elif not found:
        message = f"{taken}: {planned:,} steps are too few for a range test: trainings of {SHORTEST} or more have one"
    else:
        parts = "; ".join(_told(curve, chosen) for curve, chosen in found)
        message = f"{taken}, by range tests of {steps} steps: {parts}"
    return Decision(
        type="Rates",
        answer=f"{head:.2g}, {backbone:.2g}",
        question="Which peak learning rates do head and backbone train with?",
        message=message[:1024],
        step=0,
        evidence=evidence,
        seconds=seconds,
        otherwise="losses that are lowest, or burst, at other rates",
        alternative=f"{usual}, whatever the data",
    )


_SAYS: dict[Sight, str] = {"Fell": "fell", "Burst": "burst", "Nothing": "said something"}
_SHOWN = 12
"""Points of a curve that stand in the evidence; rates.json has all."""


def _told(curve: Curve, chosen: Chosen) -> str:
    if chosen.at is None:
        return f"{curve.part}: the loss did not fall by {LEARNED:.0%}, and did not burst: nothing is known".replace(
            "%", " %"
        )
    did = "fell around" if chosen.sight == "Fell" else "burst at"
    divided = "" if chosen.below == 1 else f", divided by {chosen.below:.2g}"
    weighed = f", weighed {chosen.weight:.0%} against {curve.prior:.3g}".replace("%", " %")
    return f"{curve.part}: the loss {did} {chosen.at:.2g}{divided}{weighed}"


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [points[i * (len(points) - 1) // (_SHOWN - 1)] for i in range(_SHOWN)] if len(points) > _SHOWN else points


def rolled_back(found: Rollback, before: Sequence[Rollback] = ()) -> Decision:
    """Return what the guard against rates that destroy has decided after others, see `training/rollback.py`.

    One at the step of another, which the run came to again, is known by its answer, and stands for both.
    """
    again = [one for one in before if one.step == found.step]
    said = "".join(f", and before that to step {one.to:,} with rates times {one.factor:.2g}" for one in again)
    return Decision(
        type="Rollback",
        answer="Yes, again" if again else "Yes",
        question="Do the learning rates destroy the model?",
        message=f"back to step {found.to:,}, with rates times {found.factor:.2g}{said}: {found.message}"[:1024],
        step=found.step,
        evidence=[
            Evidence(name="step that the training went back to", value=found.to),
            Evidence(name="factor of the learning rates since", value=found.factor),
        ],
        otherwise="a training loss that does not burst, or an evaluation that shows that something was learned since",
        alternative="to train on with these rates, whatever the losses do",
    )
