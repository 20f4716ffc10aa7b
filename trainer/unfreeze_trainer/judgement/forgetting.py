"""What a model has lost of what its base could: gauges over the same rows, and the decision. Pure.

References
----------
Kornblith et al. 2019, arXiv 1905.00414: linear CKA. PEFT's method comparison: forgetting is the loss on other text after the training less
before. Shenfeld et al. 2025, arXiv 2509.04259: the KL divergence from the base on the new task's inputs predicts forgetting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from unfreeze_api.contracts.decision import ALIKE, Decision, Evidence
from unfreeze_trainer.exports.intervals import intervals
from unfreeze_trainer.judgement.neighbours import NEIGHBOURS, SAME, centre, directions
from unfreeze_trainer.judgement.paired import interval_of_share

_FEWEST = 3
"""Rows of which each has a nearest neighbour and another one."""
_EQUAL = 1e-11
"""What a cosine lacks to 1 at most where two vectors are of the same input, but for rounding."""


@dataclass(frozen=True)
class Gauge:
    """What of the base is measured."""

    name: str
    """With its unit, for people."""
    about: str
    """What has happened by so much, as a part of a sentence with the figure as {}."""
    share: bool
    """Whether it is a share, between 0 and 1."""
    gained: str = ""
    """What has happened by so much where the figure is below 0, likewise; nothing of what never is."""


ANCHOR_LOSS = Gauge(
    "loss on the anchor, after less before, in nats",
    "the loss on the anchor is {} nats higher",
    False,
    "the loss on the anchor is {} nats lower",
)
DIVERGENCE = Gauge(
    "KL divergence from the base, in nats", "its outputs are {} nats of KL divergence from the base's", False
)
ANSWERS = Gauge("share of the base's own answers that change", "{} of the base's own answers change", True)
NEIGHBOURHOODS = Gauge(
    "share of nearest neighbours that are others", "{} of each row's nearest neighbours are others", True
)
PAIRS = Gauge(
    "recall@1 of the anchor's pictures and texts, before less after",
    "{} fewer of the anchor's pictures and texts find each other",
    True,
    "{} more of the anchor's pictures and texts find each other",
)


@dataclass(frozen=True)
class Measured:
    """A gauge on some rows."""

    gauge: Gauge
    value: float
    """0 for the base itself; not finite for a model that gives no numbers any more."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""

    @classmethod
    def of(cls, gauge: Gauge, rows: np.ndarray, units: np.ndarray | None = None, *, answers: bool = False) -> Measured:
        """Return the mean of what rows have lost, by units, with an interval over the rows.

        Parameters
        ----------
        rows
            What each has lost, in all its units; float64 of shape (rows,).
        units
            Of each row, of the same shape; one each for None.
        answers
            Whether they are answers of a model that has changed: those of other rows may, where none of these does.
        """
        counts = np.ones(len(rows)) if units is None else units
        if not np.isfinite(rows).all():
            return cls(gauge, float("inf"), float("inf"), float("inf"))

        def mean(weights: np.ndarray) -> dict[str, float]:
            return {"lost": float((weights * rows).sum() / max((weights * counts).sum(), 1e-12))}

        value = mean(np.ones(len(rows)))["lost"]
        low, high = intervals(mean, np.arange(len(rows))).get("lost", (value, value))
        if answers and np.isin(rows, (0.0, 1.0)).all():  # drawn again, rows that are all alike stay so
            low, high = interval_of_share(rows.sum(), len(rows))
        return cls(gauge, value, low, high)


@dataclass(frozen=True)
class Forgotten:
    """What a model has lost."""

    gauges: tuple[Measured, ...]
    """The first is the one that a budget is of."""
    alike: Mapping[str, float]
    """Linear CKA between base and model of each place, from input to output: 1 is the same."""
    rows: int
    anchored: bool
    """Whether they are rows of the anchor, and not validation inputs."""
    unseen: tuple[str, ...] = ()
    """Encoders of which too few of the rows have anything."""

    @property
    def first(self) -> Measured:
        """What a budget is of."""
        return self.gauges[0]

    def within(self, budget: float | None) -> bool:
        """Return whether no more is lost than a budget has; for choices, so without regard to the interval."""
        return budget is None or self.first.value <= budget


def of_towers(
    before: Mapping[str, np.ndarray], now: Mapping[str, np.ndarray], kept: np.ndarray
) -> tuple[dict[str, float], list[Measured]]:
    """Return the linear CKA of each of several encoders with itself as it was, and its gauge: that which has lost most comes first.

    Parameters
    ----------
    before, now
        Features of the same rows by the encoders' names, each of shape (rows, width); 0 throughout of what a row lacks.
    kept
        Which rows count, bool of shape (rows,).
    """
    alike, gauges = dict[str, float](), list[Measured]()
    for name, were in before.items():
        own = kept & were.any(axis=1)
        if own.sum() < _FEWEST:
            continue
        alike[name] = cka(were[own], now[name][own])
        gauge = Gauge(f"{NEIGHBOURHOODS.name}, by {name}", f"{NEIGHBOURHOODS.about} by encoder {name}", True)
        gauges.append(Measured.of(gauge, neighbours_lost(were[own], now[name][own])))
    return alike, sorted(gauges, key=lambda one: -one.value)


def pairs_lost(before: Mapping[str, np.ndarray], now: Mapping[str, np.ndarray], kept: np.ndarray) -> np.ndarray:
    """Return by how much less often what belongs together is found, float64 of shape (rows that count,): the mean of both ways, -1 to 1.

    A picture finds a text where the nearest of all rows' texts is of a row with the same picture or the same text, and likewise the
    other way round. Pictures and texts are the same that the base gave the same vectors.

    Parameters
    ----------
    before, now
        Vectors of both encoders of a base that has brought its heads along, by name, each of shape (rows, width).
    kept
        Which rows count, bool of shape (rows,).
    """
    were, are = ([found[name][kept] for name in before] for found in (before, now))
    together = np.any([own @ own.T > 1 - _EQUAL for own in map(directions, were)], axis=0)
    return _recall(were[0], were[1], together) - _recall(are[0], are[1], together)


def _recall(ones: np.ndarray, others: np.ndarray, together: np.ndarray) -> np.ndarray:
    """Return of each row in how many of both ways its nearest belongs to it, 0 to 1; 0 where there are no numbers."""
    if not (np.isfinite(ones).all() and np.isfinite(others).all()):
        return np.zeros(len(ones))
    near = directions(ones) @ directions(others).T
    ways = (way >= way.max(axis=1, keepdims=True) - SAME for way in (near, near.T))
    found: np.ndarray = np.mean([(nearest & together).any(axis=1) for nearest in ways], axis=0)
    return found


def cka(one: np.ndarray, other: np.ndarray) -> float:
    """Return the linear CKA of two matrices of features of the same rows, each of shape (rows, width); 1 where they are the same.

    It does not change with rotations and scale. Not a number where one of them has no spread, or no numbers.
    """
    if np.array_equal(one, other):
        return 1.0
    grams = [values @ values.T for values in (centre(one), centre(other))]
    norms = [float(np.linalg.norm(gram)) for gram in grams]
    both = norms[0] * norms[1]
    return float((grams[0] * grams[1]).sum() / both) if both > 0 else float("nan")


def neighbours_lost(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Return the share of each row's nearest neighbours now that were none before, float64 of shape (rows,).

    Rows are near by the cosine of their centred features. Of neighbours that are equally near none is preferred.

    Parameters
    ----------
    before, now
        Features of the same rows, each of shape (rows, width).
    """
    rows = len(before)
    if not np.isfinite(now).all():
        return np.ones(rows)
    count = min(NEIGHBOURS, (rows - 1) // 2)
    if count < 1 or np.array_equal(before, now):
        return np.zeros(rows)
    were, are = (_near(values) for values in (before, now))
    kept = [(own >= np.partition(own, rows - count, axis=1)[:, rows - count, None] - SAME) for own in (were, are)]
    found: np.ndarray = 1.0 - (kept[0] & kept[1]).sum(axis=1) / kept[1].sum(axis=1)
    return found


def _near(values: np.ndarray) -> np.ndarray:
    ways = directions(centre(values))
    near: np.ndarray = ways @ ways.T
    np.fill_diagonal(near, -np.inf)
    return near


def spoken(measured: Measured) -> str:
    """Return how much is lost, or gained, in a part of a sentence."""
    gauge, sign = measured.gauge, _sign(measured)
    return (gauge.about if sign > 0 else gauge.gained).format(_figure(gauge, sign * measured.value))


def _sign(measured: Measured) -> int:
    """Return -1 where a sentence says how much is gained, else 1."""
    return -1 if measured.value < 0 and measured.gauge.gained else 1


def _figure(gauge: Gauge, value: float) -> str:
    """Return a value of a gauge in one unit wherever a sentence has it: shares as percentages."""
    return f"{value:.1%}".replace("%", " %") if gauge.share else f"{value:.3g}"


def decided(
    found: Forgotten,
    *,
    budget: float | None,
    step: int,
    seconds: float,
    done: str = "",
    unguarded: str = "",
    undone: bool = False,
) -> Decision:
    """Return what a training has cost its base.

    Parameters
    ----------
    found
        Of the finished weights.
    budget
        What may be lost; None where nobody says.
    step, seconds
        That the run is at, and what the gauges took.
    done
        What a guard has done about it, in a sentence.
    unguarded
        What there would be without it.
    undone
        Whether the guard has left nothing of what was learned below the head, which is a warning.
    """
    first = found.first
    on = f"{found.rows:,} {'rows of the anchor' if found.anchored else 'validation inputs'}"
    sign = _sign(first)
    low, high = (_figure(first.gauge, value) for value in sorted((sign * first.low, sign * first.high)))
    interval = f"{low} to {high}, 95 % on {on}"
    others = [one for one in found.gauges[1:] if one is found.gauges[1] or one.gauge is PAIRS]
    beside = "".join(f"; {spoken(one)}" for one in others)
    if found.unseen:
        beside += f"; of encoder {', '.join(found.unseen)} too few rows have anything to say what it has lost"
    answer, limit = "Measured", ""
    if budget is not None:
        within = first.high <= budget and not found.unseen
        answer = "Within" if within else "Broken" if first.low > budget else "NotSurely"
        words = {
            "Within": "within",
            "Broken": "beyond",
            "NotSurely": "not surely within" if found.within(budget) else "perhaps beyond",
        }
        limit = (
            f", {words[answer]} the budget of {_figure(first.gauge, budget) if first.gauge.share else f'{budget:g}'}"
        )
    lead = "the model has forgotten more of its base than its budget allows: " if answer == "Broken" else ""
    if undone:
        lead = (
            "to keep the budget all that was learned below the head is undone, so raise it, or train less of the base: "
        )
    return Decision(
        type="Forgetting",
        answer=answer,
        question="What has the model lost of what its base could?",
        message=f"{lead}{spoken(first)} ({interval}){limit}{beside}{f'. {done}' if done else ''}",
        step=step,
        warning=True if answer == "Broken" or undone else None,
        evidence=[
            *(Evidence(name=one.gauge.name, value=one.value, low=one.low, high=one.high) for one in found.gauges),
            *(Evidence(name=f"{ALIKE}{name}", value=value) for name, value in found.alike.items()),
        ],
        seconds=seconds,
        otherwise=""
        if budget is None
        else f"an interval that lies {'above' if answer == 'Within' else 'below'} {budget:g}",
        alternative=unguarded or "the finished weights, whatever they have lost",
    )


def none_lost(step: int, done: str = "") -> Decision:
    """Return that a model whose head alone has trained has lost nothing. Parameters as of `decided`."""
    return Decision(
        type="Forgetting",
        answer="Within",
        question="What has the model lost of what its base could?",
        message=f"nothing: the head alone was trained, and the base's weights are what they were{f'. {done}' if done else ''}",
        step=step,
        evidence=[Evidence(name="weights below the head that were trained", value=0.0)],
        otherwise="a strategy that trains more than the head",
        alternative="the finished weights, whatever they have lost",
    )
