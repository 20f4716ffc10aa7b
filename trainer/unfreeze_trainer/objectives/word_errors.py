"""How far texts that a model has written of speech are from the right ones: word and character error rates, as sums."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class WordErrors:
    """Sums over samples, of which each has one right text. Texts are compared as they are but for the blanks between words."""

    def __init__(self) -> None:
        self._samples = self._exact = 0
        self._errors = np.zeros((2, 2), dtype=np.int64)  # of words and of characters: edits, and how many are right

    def add(self, said: str, right: str) -> None:
        """Count a text that was written, and the right one."""
        one, other = said.split(), right.split()
        self._samples += 1
        self._exact += one == other
        for place, (own, wanted) in enumerate(((one, other), (" ".join(one), " ".join(other)))):
            self._errors[place] += edits(own, wanted), len(wanted)

    def compute(self) -> dict[str, float]:
        """Return wer and cer, edits for each word and each character of the right texts, and exactMatch; nothing without samples.

        Both are sums over all samples, not means of the samples' rates, and above 1 where more is written than is right.
        """
        if not self._samples:
            return {}
        wer, cer = (float(found / max(1, wanted)) for found, wanted in self._errors)
        return {"wer": wer, "cer": cer, "exactMatch": self._exact / self._samples}


def edits(said: Sequence[str], right: Sequence[str]) -> int:
    """Return the fewest insertions, deletions and substitutions that make one sequence another (Levenshtein 1966)."""
    before = list(range(len(right) + 1))
    for number, own in enumerate(said, 1):
        row = [number]
        for place, wanted in enumerate(right, 1):
            row.append(min(before[place] + 1, row[-1] + 1, before[place - 1] + (own != wanted)))
        before = row
    return before[-1]
