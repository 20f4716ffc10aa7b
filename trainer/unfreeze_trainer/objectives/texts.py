"""How near texts that a model has made are to the right ones: exact match, ROUGE-L and chrF, as sums over samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol
from unicodedata import category

import numpy as np

_ORDERS, _BETA = 6, 2.0
"""Of chrF: the longest n-grams of characters, and how many times as much recall counts as precision."""
_LOOKS = dict.fromkeys((*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
"""Marks that choose how a sign looks, as behind most emoji: they are no words."""


class Scores(Protocol):
    """Sums over samples, of which each has one right text."""

    def add(self, said: str, right: str) -> None:
        """Count a text that was made, and the right one."""

    def compute(self) -> dict[str, float]:
        """Return the figures by name; nothing without samples."""


class TextScores:
    """Sums over samples, of which each has one right text."""

    def __init__(self) -> None:
        self._samples = self._exact = 0
        self._rouge = 0.0
        self._grams = np.zeros((_ORDERS, 3), dtype=np.int64)  # of what was said, of what is right, of both

    def add(self, said: str, right: str) -> None:
        """Count a text that was made, and the right one; blanks around them do not count."""
        said, right = said.strip(), right.strip()
        self._samples += 1
        self._exact += said == right
        self._rouge += rouge_l(said, right)
        one, other = ("".join(text.split()) for text in (said, right))
        for order in range(1, _ORDERS + 1):
            grams, wanted = _grams(one, order), _grams(other, order)
            if wanted:  # as sacrebleu counts: where the right text is shorter, what was said is neither right nor wrong
                self._grams[order - 1] += grams.total(), wanted.total(), (grams & wanted).total()

    def compute(self) -> dict[str, float]:
        """Return exactMatch, rougeL and chrF, each from 0 to 1; nothing without samples.

        exactMatch is the share of texts that are the right ones, rougeL the mean of the samples', chrF that of all samples together.
        """
        if not self._samples:
            return {}
        return {
            "exactMatch": self._exact / self._samples,
            "rougeL": self._rouge / self._samples,
            "chrF": _chrf(self._grams),
        }


def rouge_l(said: str, right: str) -> float:
    """Return ROUGE-L of a text, from 0 to 1: F1 of the longest common subsequence of words (Lin 2004).

    Words are runs of letters and digits of any script with their marks (vowels of Hindi), in lower case; none are stemmed.
    """
    one, other = _words(said), _words(right)
    if not one or not other:
        return float(said == right)
    return 2 * _common(one, other) / (len(one) + len(other))


def _words(text: str) -> list[str]:
    plain = text.lower().translate(_LOOKS)
    return "".join(sign if sign.isalnum() or category(sign) in {"Mn", "Mc"} else " " for sign in plain).split()


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    before = [0] * (len(other) + 1)
    for word in one:
        row = [0]
        for place, same in enumerate(other, 1):
            row.append(before[place - 1] + 1 if word == same else max(before[place], row[-1]))
        before = row
    return before[-1]


def _grams(text: str, order: int) -> Counter[str]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))


def _chrf(grams: np.ndarray) -> float:
    """Return chrF2 of counts of n-grams, from 0 to 1 (Popović 2015): mean precision and recall over the orders that both texts have."""
    there = (grams[:, 0] > 0) & (grams[:, 1] > 0)
    if not there.any():
        return 0.0
    precision = float((grams[there, 2] / grams[there, 0]).mean())
    recall = float((grams[there, 2] / grams[there, 1]).mean())
    weighted = _BETA**2 * precision + recall
    return (1 + _BETA**2) * precision * recall / weighted if weighted else 0.0
