"""What a ranking says: the scores of each base, best first, and beside them the order that looks at no data. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from unfreeze_api.contracts.decision import Decision, Evidence
from unfreeze_api.grammar.model import Model
from unfreeze_trainer.ranking.scores import Scores
from unfreeze_trainer.runs.choice import MEAN, short_name

RULE = "knn of the place in each base that tells most, then the smaller base"
READ = "head input"
"""What the place is called whose features the head reads."""
_LEVEL = 1.959964
"""Standard errors of an interval of 95 %."""
_DIGITS = 6
_TOLD = 256
"""Characters of a source in a sentence: a decision's has 1,024, and names two."""


class PlaceScores(Model):
    """Scores of the features of one place in a model, as of `ranking.scores`."""

    knn: float
    logme: float
    h_score: float


class RankedBase(Model):
    """A candidate with what its features say."""

    source: str
    """As in spec.model.candidates."""
    rank: int
    """1 for the best."""
    place: str
    """The one that tells most, by which the bases are in order: a layer, what the head reads, or the mean of layers."""
    scores: PlaceScores
    """Of that place."""
    best_layer: str
    """The place with the highest knn."""
    places: dict[str, PlaceScores]
    """From input to output."""
    behind_first: float
    """How much its knn is below the first one's, on the same rows."""
    behind_interval: tuple[float, float]
    """That holds the difference with 95 %, by the normal approximation of paired differences; rows with equal inputs count as one."""
    parameters: int
    """Without the new head."""
    size_rank: int
    """Its place in the order by size, the largest first: what one would take without looking at the data."""
    seconds: float
    """That loading it, its features and their scores took."""


class Ranking(Model):
    """The candidates of a job, best first."""

    bases: list[RankedBase]
    rows: int
    """Rows of the training split that the features are of."""
    training_rows: int
    """Of the whole training split."""
    seed: int
    """By which the rows were drawn."""
    guess: float
    """What knn would be without features: the share of the commonest label, or 0."""
    share_of: Literal["Rows", "Variance"] = "Rows"
    """What knn is a share of: rows that are right, or of several labels and of numbers the variance that is explained."""
    rule: str = RULE
    """By which the bases are in order."""

    @property
    def sentence(self) -> str:
        """What was chosen and why, in a sentence."""
        first, *others = self.bases
        of = "the variance of " if self.share_of == "Variance" else ""
        said = f"{_told(first.source)}: its features tell {first.scores.knn:.3f} of {of}{self.rows} training rows by their neighbours"
        if first.scores.knn <= self.guess:
            blind = "saying the mean" if of else f"guessing the commonest label, {self.guess:.3f}"
            said += f", which is no better than always {blind}"
        if not others:
            return said
        low, high = others[0].behind_interval
        close = ", which is within chance" if low <= 0 else ""
        return (
            f"{said}, {_told(others[0].source)} {others[0].scores.knn:.3f} (behind by {others[0].behind_first:.3f},"
            f" {low:.3f} to {high:.3f}{close})"
        )

    @property
    def decision(self) -> Decision:
        """The choice of the first as a decision of the run, before its first step."""
        first, *others = self.bases
        largest = min(self.bases, key=lambda base: base.size_rank)
        evidence = [Evidence(name=f"knn of {first.source}", value=first.scores.knn)]
        evidence += [Evidence(name="knn without features", value=self.guess)]
        for base in others:
            low, high = base.behind_interval
            evidence.append(
                Evidence(name=f"how far {base.source} is behind it", value=base.behind_first, low=low, high=high)
            )
        of = "variance" if self.share_of == "Variance" else "rows"
        needed = f"a layer of another candidate that tells more than {first.scores.knn:.3f} of the {of}"
        return Decision(
            type="Base",
            answer=short_name(first.source, [base.source for base in others]),
            question="Which of the candidates suits the training data?",
            message=self.sentence,
            step=0,
            evidence=evidence,
            seconds=sum(base.seconds for base in self.bases),
            otherwise=needed if others else "another candidate",
            alternative=f"the largest, {largest.source}, whose features tell {largest.scores.knn:.3f}",
        )


def _told(source: str) -> str:
    """Return a source for a sentence; of one that is too long the end, which tells it from others."""
    return source if len(source) <= _TOLD else f"…{source[1 - _TOLD :]}"


@dataclass(frozen=True)
class Measured:
    """What was measured of a candidate."""

    source: str
    places: Mapping[str, Scores]
    """From input to output; `MEAN` among them where there is one."""
    parameters: int
    seconds: float
    read: np.ndarray | None = field(default=None, compare=False)
    """Which samples its scores are of, in order; None for all. One base may take clips that are too short for another."""
    copies: np.ndarray | None = field(default=None, compare=False)
    """Of each of these a number that samples with equal inputs share, which are one witness together; None where all differ."""

    @property
    def place(self) -> str:
        """The one that tells most by its neighbours; of equals the last, which is the mean of layers or nearest to the head."""
        return max(reversed([*self.places]), key=lambda name: self.places[name].knn)


def ranked(found: Sequence[Measured]) -> list[RankedBase]:
    """Return candidates in order, best first: a pure function of what was measured.

    Parameters
    ----------
    found
        At least one, all of the same rows, as far as each could read them.
    """
    sizes = sorted(found, key=lambda one: (-one.parameters, one.source))
    order = sorted(found, key=_key)
    return [_base(one, number, sizes.index(one) + 1, order[0]) for number, one in enumerate(order, 1)]


def _behind(first: Measured, other: Measured) -> tuple[float, float]:
    """Return how far a base is behind on the rows that both have read, and the standard error of that."""
    one, two = (each.places[each.place].rows for each in (first, other))
    copies = other.copies
    if first.read is not None and other.read is not None:
        _, here, there = np.intersect1d(first.read, other.read, assume_unique=True, return_indices=True)
        one, two = one[here], two[there]
        copies = None if copies is None else copies[there]
    found = one - two
    mean, which = float(found.mean()), np.arange(len(found))
    if copies is not None:
        which = np.unique(copies, return_inverse=True)[1]
    witnesses = np.bincount(which, found - mean)
    count = len(witnesses)
    return mean, float(np.sqrt((witnesses**2).sum() * count / max(1, count - 1))) / len(found)


def _key(one: Measured) -> tuple[float, int, str]:
    return -round(one.places[one.place].knn, _DIGITS), one.parameters, one.source


def _base(one: Measured, rank: int, size_rank: int, first: Measured) -> RankedBase:
    difference, error = _behind(first, one)
    error *= _LEVEL
    return RankedBase(
        source=one.source,
        rank=rank,
        place=one.place,
        scores=_of(one.places[one.place]),
        best_layer=max((name for name in one.places if name != MEAN), key=lambda name: one.places[name].knn),
        places={name: _of(scores) for name, scores in one.places.items()},
        behind_first=round(difference, _DIGITS),
        behind_interval=(round(difference - error, _DIGITS), round(difference + error, _DIGITS)),
        parameters=one.parameters,
        size_rank=size_rank,
        seconds=round(one.seconds, 3),
    )


def _of(scores: Scores) -> PlaceScores:
    return PlaceScores(
        knn=round(scores.knn, _DIGITS), logme=round(scores.logme, _DIGITS), h_score=round(scores.h_score, _DIGITS)
    )
