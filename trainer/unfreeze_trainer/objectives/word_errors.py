"""How far texts that a model has written of speech are from the right ones: word and character error rates, as sums."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

SUMS = 6
"""Numbers that say all of some samples."""


class WordErrors:
    """Sums over samples, of which each has one right text. Texts are compared as they are but for the blanks between words.

    Parameters
    ----------
    sums
        Of samples that have been counted: how many, those without an error, edits of words, words that are right, edits of
        characters, characters that are right; int64 of shape (SUMS,).
    """

    def __init__(self, sums: Sequence[int] | np.ndarray | None = None) -> None:
        self.sums = np.zeros(SUMS, dtype=np.int64) if sums is None else np.asarray(sums, dtype=np.int64)

    def add(self, said: str, right: str) -> None:
        """Count a text that was written, and the right one."""
        one, other = said.split(), right.split()
        letters, wanted = " ".join(one), " ".join(other)
        of_words = edits(one, other), len(other)
        self.sums += 1, one == other, *of_words, edits(letters, wanted), len(wanted)

    def compute(self) -> dict[str, float]:
        """Return wer and cer, edits for each word and each character of the right texts, and exactMatch; nothing without samples.

        Both are sums over all samples, not means of the samples' rates, and above 1 where more is written than is right.
        """
        samples, exact, wrong_words, words, wrong_letters, letters = self.sums.tolist()
        if not samples:
            return {}
        return {
            "wer": wrong_words / max(1, words),
            "cer": wrong_letters / max(1, letters),
            "exactMatch": exact / samples,
        }


def edits(said: Sequence[Hashable], right: Sequence[Hashable]) -> int:
    """Return the fewest insertions, deletions and substitutions that make one sequence another (Levenshtein 1966).

    A column of the table of distances is two whole numbers, a bit of each for a place of `right`: whether the distance grows or shrinks
    there (Myers 1999, as Hyyrö 2003 has it). So a column costs a few operations on numbers of len(right) bits, and two of them are held.
    """
    if not right:
        return len(said)
    every = (1 << len(right)) - 1
    last = 1 << (len(right) - 1)
    places: dict[Hashable, int] = {}
    for place, wanted in enumerate(right):
        places[wanted] = places.get(wanted, 0) | 1 << place
    grows, shrinks, distance = every, 0, len(right)
    for own in said:
        same = places.get(own, 0)
        level = (((same & grows) + grows) ^ grows) | same | shrinks
        more = shrinks | (every & ~(level | grows))
        less = grows & level
        distance += bool(more & last) - bool(less & last)
        more, less = (more << 1 | 1) & every, (less << 1) & every
        level = same | shrinks
        grows, shrinks = less | (every & ~(level | more)), more & level
    return distance
