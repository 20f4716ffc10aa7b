"""How much of the model to change: whether one more rung is worth it, and which of them is taken. Pure.

The best rung is not taken where a cheaper one is not worse by more than a margin, with probability .9 (non-inferiority):
absence of evidence is not equality, and a rung that is not surely as good is no reason to do without a better one.

A few validation rows tell nothing surely: all of them right is no sign that nothing is left to gain, and the same rows right none that two rungs are
alike. Below `FEW` of them no gate is shut by what they say, and the best rung is taken, of equal ones that with the lowest loss.

Below the first rung stands a classical model, where the task has one. It is never taken, since it is no model of the base, but a rung
that is no better is worth nothing: it shuts no gate, and is not taken in place of one that is surely better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unfreeze_api.contracts.decision import Decision, Evidence
from unfreeze_api.tasks.base import Metric

SURE = 0.9
"""Probability of being within the margin at which a cheaper rung is taken, and one that has begun is given up."""
IDLE = 0.8
"""Probability that the newest rung brought no more than the margin at which no other follows: what is at stake is what that would bring beyond it."""
MIN_GAIN = 0.01
"""Largest margin where nobody says one: of a metric that is better when it is lower a share of its value."""


_CERTAIN = 0.995
"""Probability that would be told as 1.00."""
FEW = 30
"""Validation rows below which they tell nothing surely: where all of so many are right, up to a tenth of others may be wrong (95 %, the rule of
three: Hanley and Lippman-Hand 1983, doi:10.1001/jama.1983.03330370053031)."""


@dataclass(frozen=True)
class Climbed:
    """A rung that has been trained."""

    name: str
    value: float
    """Of the metric, by its best weights."""
    steps: int
    seconds: float
    error: float | None = None
    """Standard error of the value; None where nobody knows what it says of each row, as below."""
    low: float | None = None
    """Lower end of its 95 % interval."""
    high: float | None = None
    useful: bool | None = None
    """Whether it is better than always guessing one class; None where that has no meaning."""
    majority: float | None = None
    """What always guessing one class has; None where that has no meaning, or is of another metric."""
    loss: float | None = None
    """Mean on the validation samples; None where there is none."""
    by_rows: bool = True
    """Whether it is known what it says of each row: else it is compared by its value, which no probability can be told of."""
    instead: str = ""
    """Another metric that it is compared by row by row, since its own needs more than what it says of each; by its own only as a value."""


@dataclass(frozen=True)
class Wanted:
    """What a job asks for."""

    metric: Metric
    target: float | None = None
    min_gain: float | None = None
    seconds: float | None = None
    """Of all rungs together."""
    rows: int | None = None
    """Validation samples that values are measured on; None where nobody says."""

    @property
    def few(self) -> bool:
        """Whether these are too few to tell anything surely."""
        return self.rows is not None and self.rows < FEW


@dataclass(frozen=True)
class Yardstick:
    """A classical model, compared with each rung on the same validation rows."""

    name: str
    metric: str
    """That they are compared by."""
    value: float
    gains: Sequence[float]
    """By how much each rung is better, above 0 whichever way the metric goes."""
    better: Sequence[bool]
    """Whether each rung is, and hardly by chance."""
    seconds: float = 0.0
    """That it took."""

    @property
    def ahead(self) -> bool:
        """Whether no rung is better on these rows."""
        return not any(gain > 0 for gain in self.gains)  # nor is one that is no number

    @property
    def evidence(self) -> Evidence:
        """What it is beside the rungs."""
        seconds = round(self.seconds, 1)
        return Evidence(name=f"validation {self.metric} of {self.name}", value=self.value, seconds=seconds)


@dataclass(frozen=True)
class Next:
    """The rung that would come."""

    name: str
    seconds: float
    """That it takes, by what was measured; 0 where nothing was."""


def best_of(values: Sequence[float], metric: Metric, losses: Sequence[float | None] = ()) -> int:
    """Return the place of the best value, and one that is no number only where none is; of equal ones that with the lowest loss, or the first.

    Parameters
    ----------
    values, metric
        What is compared.
    losses
        Of each value, to tell equal ones apart; None, or no number, is no lower than any.
    """
    best = 0
    for place, value in enumerate(values):
        gain = metric.improvement(value, values[best])
        equal = gain == 0 and bool(losses) and _lower(losses[place], losses[best])
        if not math.isnan(value) and (math.isnan(values[best]) or gain > 0 or equal):
            best = place
    return best


def top_of(climbed: Sequence[Climbed], metric: Metric) -> int:
    """Return the place of the best rung, as `best_of`."""
    return best_of([one.value for one in climbed], metric, [one.loss for one in climbed])


def _lower(one: float | None, other: float | None) -> bool:
    return one is not None and math.isfinite(one) and other is not None and one < other


def margin_of(best: Climbed, wanted: Wanted) -> float:
    """Return by how much a rung may be worse than the best one, in units of the metric."""
    if wanted.min_gain is not None:
        return wanted.min_gain
    usual = MIN_GAIN if wanted.metric.better == "Higher" else MIN_GAIN * abs(best.value)
    return usual if best.error is None or math.isnan(best.error) else min(usual, best.error)


def within_values(one: float, other: float, margin: float, metric: Metric) -> float:
    """Return 1 where the first value is not worse than the second by more than a margin, else 0: without rows to draw from.

    What is no number is worse than any that is, and not worse than another that is none.
    """
    if math.isnan(other):
        return 1.0
    return float(metric.improvement(other, one) <= margin)


def gate(
    climbed: Sequence[Climbed],
    following: Next,
    wanted: Wanted,
    *,
    idle: float | None,
    step: int,
    classical: Yardstick | None = None,
) -> Decision:
    """Return whether the next rung is worth it: Yes or No.

    Parameters
    ----------
    climbed
        The rungs so far, in order; at least one.
    following
        The one that would come.
    wanted
        What the job asks for.
    idle
        How probably the newest rung is better than the best before it by no more than the margin; None of the first one.
    step
        That the run is at.
    classical
        What the rungs have to beat: while none is better, one that brought nothing shuts no gate. None where there is none.
    """
    metric, best = wanted.metric, climbed[top_of(climbed, wanted.metric)]
    newest, margin, spent = climbed[-1], margin_of(best, wanted), sum(one.seconds for one in climbed)
    left = 1 - best.value if metric.better == "Higher" else best.value
    found = f"{metric.name} is {best.value:.4g} by {best.name}"
    name, behind = following.name, classical is not None and classical.ahead
    if classical is not None and behind:
        by = "" if classical.metric == metric.name else f"by {classical.metric} "  # it has no loss
        found += f", no better {by}than {classical.name}, {classical.value:.4g}"
    if wanted.target is not None and metric.improvement(best.value, wanted.target) >= 0:
        why, answer = f"the target {wanted.target:.4g} is met", "No"
        otherwise = f"a target above {best.value:.4g}" if metric.better == "Higher" else f"one below {best.value:.4g}"
    elif left <= margin and not wanted.few:
        why, answer = f"no more than {max(left, 0):.2g} is left to gain", "No"
        otherwise = "validation samples that the model gets wrong"
    elif wanted.seconds is not None and spent + following.seconds > wanted.seconds:
        takes = f"{name} takes about {following.seconds:.0f} s" if spent < wanted.seconds else "no time is left"
        why, answer = f"{takes}, and {spent:.0f} s of the {wanted.seconds:.0f} s are spent", "No"
        otherwise = f"a budget of {math.ceil(spent + following.seconds):,} s"
    elif idle is not None and idle >= IDLE and best.useful is not False and not behind and not wanted.few:
        why = f"{newest.name} brought no more than {margin:.2g}, {_surely(climbed, idle, wanted.rows)}"
        answer, otherwise = "No", "a gain by the newest rung, or a smaller minGain"
    else:
        why, answer = f"{max(left, 0):.2g} is left to gain", "Yes"
        if math.isnan(left):
            why = "nothing is known of what is left to gain"
        elif left <= margin:
            why = f"{wanted.rows} validation samples are too few to say that nothing is left to gain"
        elif metric.better == "Lower":
            why = "it is not known how much lower it gets"
        otherwise = "a target that is met, or a rung that surely brings nothing"
    return Decision(
        type="Rung",
        answer=answer,
        question=f"Is it worth training more of the model than {newest.name} does?",
        message=f"{found}, {why}: {name} is {'tried' if answer == 'Yes' else 'not tried'}",
        step=step,
        evidence=[
            *_below(climbed, metric, classical),
            *_of_rungs(climbed, metric),
            Evidence(name="minGain", value=margin),
            *(
                []
                if idle is None or not _known(climbed)
                else [Evidence(name=f"probability that {newest.name} gained no more than {margin:.2g}", value=idle)]
            ),
            Evidence(name=f"seconds that {name} takes, about", value=round(following.seconds, 1)),
        ],
        otherwise=otherwise,
        alternative="to train every rung, whatever the validation data says",
    )


def choose(
    climbed: Sequence[Climbed],
    within: Sequence[float],
    wanted: Wanted,
    *,
    step: int,
    untried: Sequence[str] = (),
    given_up: Sequence[str] = (),
    beyond: Sequence[str] = (),
    classical: Yardstick | None = None,
) -> tuple[int, Decision]:
    """Return the place of the rung that is taken, and the decision: the cheapest that is surely not worse than the best.

    Parameters
    ----------
    climbed
        The rungs that have been trained, from the cheapest to the dearest; at least one.
    within
        How probably each is worse than the best one by no more than the margin.
    wanted
        What the job asks for.
    step
        That the run is at.
    untried
        Rungs above these that have not begun.
    given_up
        Rungs above these that were given up, since their learning rates destroyed the model.
    beyond
        Rungs that were trained, none of whose evaluations is within the budget of forgetting.
    classical
        What they have to beat: where the best one surely does, none is taken that does not. None where there is none.
    """
    metric = wanted.metric
    top = top_of(climbed, metric)
    best, margin = climbed[top], margin_of(climbed[top], wanted)
    leads = classical.better if classical is not None and classical.better[top] else [True] * len(climbed)
    alike = [probable >= SURE and not wanted.few for probable in within]
    place = next(place for place in range(len(climbed)) if place == top or (alike[place] and leads[place]))
    taken, behind = climbed[place], [climbed[number].name for number in range(place) if alike[number]]
    if place != top:
        message = (
            f"{taken.name} is taken: its {metric.name} {taken.value:.4g} is not worse than the {best.value:.4g} of {best.name} by"
            f" more than {margin:.2g}, {_surely(climbed, within[place], wanted.rows)}"
        )
        otherwise = f"a minGain of less: with 0 it is {best.name}"
    else:
        cheaper = [f"{one.name} {one.value:.4g}" for one in climbed[:top] if one.value != taken.value]
        equal = [one.name for one in climbed[:top] if one.value == taken.value]
        than = f", better than {', '.join(cheaper)}" if cheaper else ""
        than += f", that of {', '.join(equal)} too, with a higher loss" if equal else ""
        message = f"{taken.name} is taken: its {metric.name} is {taken.value:.4g}{than}"
        likely = max(within[:top], default=None)
        otherwise = (
            "a dearer rung that is better"
            if likely is None
            else f"{FEW} validation samples or more: with {wanted.rows} no rung is surely as good as a better one"
            if wanted.few
            else f"a cheaper rung that is within {margin:.2g}"
            if not _known(climbed)
            else f"a cheaper rung that is within {margin:.2g} with probability {SURE:g}; the most probable one is with {likely:.2f}"
        )
    if behind and classical is not None:
        otherwise = f"{behind[0]} were surely better than {classical.name} too"
    if classical is not None and not any(classical.better):
        surely = "" if classical.ahead else "surely "
        message = (
            f"no rung is {surely}better than {classical.name}, {classical.metric} {classical.value:.4g}; {message}"
        )
    above = [*given_up, *untried]
    last = above[-1] if above else climbed[-1].name
    known = "" if above else f": {metric.name} {climbed[-1].value:.4g}"
    if beyond:
        message += f"; {', '.join(beyond)} not taken, beyond the budget of evidence.forgetting"
    if given_up:
        message += f"; {', '.join(given_up)} given up, since its learning rates destroy the model"
    return place, Decision(
        type="Strategy",
        answer=taken.name,
        question="How much of the model is changed?",
        message=message + (f"; {', '.join(untried)} not tried" if untried else ""),
        step=step,
        evidence=[
            *_below(climbed, metric, classical),
            *_of_rungs(climbed, metric),
            *(
                Evidence(
                    name=f"probability that {one.name} is not worse than the best by more than {margin:.2g}",
                    value=value,
                )
                for one, value in zip(climbed, within, strict=True)
                if one is not best and _known(climbed)
            ),
        ],
        seconds=sum(one.seconds for number, one in enumerate(climbed) if number > place),
        otherwise=otherwise,
        alternative=f"the last rung, {last}{known}. One seed",
    )


def _known(climbed: Sequence[Climbed]) -> bool:
    """Return whether rungs are compared row by row."""
    return all(one.by_rows for one in climbed)


def _surely(climbed: Sequence[Climbed], probability: float, rows: int | None) -> str:
    """Return how sure a comparison is, for people: that a few rows are all alike makes nothing certain."""
    if not _known(climbed):
        return "by the values alone"
    by = f" by {climbed[0].instead}" if climbed[0].instead else ""
    if probability < _CERTAIN:
        return f"with probability {probability:.2f}{by}"
    return f"as far as {'the' if rows is None else f'{rows:,}'} validation samples tell{by}"


def _below(climbed: Sequence[Climbed], metric: Metric, classical: Yardstick | None) -> list[Evidence]:
    """Return what stands below the first rung: always guessing one class, and a classical model."""
    majority = next((one.majority for one in climbed if one.majority is not None), None)
    name = f"validation {metric.name} of always guessing one class"
    guess = [] if majority is None else [Evidence(name=name, value=majority)]
    return guess + ([] if classical is None else [classical.evidence])


def _of_rungs(climbed: Sequence[Climbed], metric: Metric) -> list[Evidence]:
    return [
        Evidence(
            name=f"validation {metric.name} of {one.name}",
            value=one.value,
            low=one.low,
            high=one.high,
            seconds=round(one.seconds, 1),
        )
        for one in climbed
    ]
