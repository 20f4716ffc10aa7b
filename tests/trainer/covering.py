"""Covering arrays: few rows in which any two values of different factors meet, where the rules let them.

Greedy, one row at a time, as AETG does it (Cohen et al. 1997, "The AETG System"), but without chance: the same factors give
the same rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Row = dict[str, str]
"""The value of each factor, by the factor's name."""
Pair = tuple[tuple[str, str], tuple[str, str]]
"""Two factors with a value each, in the order of the factors."""


@dataclass(frozen=True)
class Covering:
    """What `cover` returns."""

    rows: list[Row]
    """Whole rows that are allowed."""
    refused: dict[Pair, str]
    """Pairs that stand in no row, with what the rules say about them."""


def cover(factors: Mapping[str, Sequence[str]], refusal: Callable[[Row], str]) -> Covering:
    """Return rows in which every pair of values stands that is not refused.

    Parameters
    ----------
    factors
        The values of each factor, by name; early values are preferred where it makes no other difference.
    refusal
        What the rules say against a row, "" when it is allowed. It is asked about pairs, for which it chooses what suits them
        of the other factors, and about whole rows.
    """
    told = {pair: said for pair in _pairs(factors) if (said := refusal(dict(pair)))}
    refused = dict(told)
    left = dict.fromkeys(pair for pair in _pairs(factors) if pair not in told)
    rows: list[Row] = []
    while left:
        seed = next(iter(left))
        search = _Search(factors, told, left, refusal)
        if row := search.completed(dict(seed)):
            rows.append({factor: row[factor] for factor in factors})
            for pair in pairs_of(row, factors):
                left.pop(pair, None)
        else:  # rules about more than two factors, or two of them that leave nothing to a third
            refused[seed] = search.said or "no value of another factor is allowed with both"
            del left[seed]
    return Covering(rows, refused)


def pairs_of(row: Row, factors: Mapping[str, Sequence[str]]) -> Iterator[Pair]:
    """Yield the pairs that a row has, whole or not."""
    chosen = [(factor, row[factor]) for factor in factors if factor in row]
    return itertools.combinations(chosen, 2)


def _pairs(factors: Mapping[str, Sequence[str]]) -> Iterator[Pair]:
    """Yield all pairs; those of the two factors with the most values first, since they need the most rows."""
    longest = sorted(factors, key=lambda factor: -len(factors[factor]))
    order = {factor: number for number, factor in enumerate(factors)}
    for two in itertools.combinations(longest, 2):
        one, other = sorted(two, key=order.__getitem__)
        for values in itertools.product(factors[one], factors[other]):
            yield (one, values[0]), (other, values[1])


@dataclass
class _Search:
    """Looks for a whole row, depth first."""

    factors: Mapping[str, Sequence[str]]
    refused: Mapping[Pair, str]
    left: Mapping[Pair, None]
    refusal: Callable[[Row], str]
    said: str = ""
    """What was said against the first whole row that was tried."""

    def completed(self, row: Row) -> Row | None:
        """Return a row with a value for each factor that it lacks, one that adds many pairs; None when none is allowed."""
        lacking = next((factor for factor in self.factors if factor not in row), None)
        if lacking is None:
            said = self.refusal(row)
            self.said = self.said or said
            return None if said else row
        candidates = ({**row, lacking: value} for value in self.factors[lacking])
        for candidate in sorted(candidates, key=self._already_met):
            if any(pair in self.refused for pair in pairs_of(candidate, self.factors)):
                continue
            if whole := self.completed(candidate):
                return whole
        return None

    def _already_met(self, row: Row) -> int:
        return -sum(pair in self.left for pair in pairs_of(row, self.factors))
