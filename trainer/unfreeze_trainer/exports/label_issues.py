"""label-issues.csv: held-out rows by how probably their label is wrong, the most probable first.

Only rows that a model was not trained on tell this honestly, and so it lists those of validation and test alone.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unfreeze_trainer.exports.figures import amounts
from unfreeze_trainer.exports.predictions import About, batches, class_ids, columns_of, matrix
from unfreeze_trainer.exports.thresholds import of_labels

HEADER = ("split", "row", "word", "label", "suggested", "probable", "score")
Found = dict[str, tuple[Path, About]]


@dataclass(frozen=True)
class Issues:
    """Rows of all splits together, in the order of their files."""

    split: np.ndarray
    """Index of the split, int8 of shape (rows,)."""
    row: np.ndarray
    word: np.ndarray | None
    score: np.ndarray
    """The least is the most suspicious: probability that the label is right, or of numbers how far the error is from being odd."""
    probable: np.ndarray
    """Whether the label is probably wrong, bool."""
    label: list[str] | np.ndarray
    suggested: list[str] | np.ndarray

    def order(self) -> np.ndarray:
        """Return the indices of the rows, the most suspicious first, int64 of shape (rows,)."""
        return np.argsort(self.score, kind="stable")


def write_issues(path: Path, found: Found) -> int:
    """Write the list; return how many labels are probably wrong.

    Parameters
    ----------
    found
        Files of predictions by split, and what they are of; all of one kind.
    """
    kinds = {"OneOf": _of_classes, "AnyOf": _of_labels, "Amounts": _of_amounts}
    issues = kinds[next(iter(found.values()))[1].kind](found)
    names = list(found)
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow([name for name in HEADER if name != "word" or issues.word is not None])
        for index in issues.order().tolist():
            word = [] if issues.word is None else [int(issues.word[index])]
            lines.writerow(
                [
                    *(names[issues.split[index]], int(issues.row[index]), *word),
                    *(_cut(issues.label[index]), _cut(issues.suggested[index])),
                    *("yes" if issues.probable[index] else "no", f"{issues.score[index]:.4f}"),
                ]
            )
    return int(issues.probable.sum())


_MAX_CELL = 4000
"""Characters of a row's labels; readers of CSV have limits."""


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 1] + "\u2026"


def _places(found: Found) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return split, row and word of each row."""
    parts: list[list[np.ndarray]] = [[], [], []]
    has_words = "word" in columns_of(next(iter(found.values()))[0])
    for number, (path, _) in enumerate(found.values()):
        for batch in batches(path, ["row", "word"] if has_words else ["row"]):
            parts[0].append(np.full(len(batch), number, dtype=np.int8))
            parts[1].append(batch.column("row").to_numpy())
            if has_words:
                parts[2].append(batch.column("word").to_numpy())
    return np.concatenate(parts[0]), np.concatenate(parts[1]), np.concatenate(parts[2]) if has_words else None


def _of_classes(found: Found) -> Issues:
    """Confident learning (Northcutt et al. 2021, arXiv 1911.00068, equations 1 and 2).

    A class's threshold is the mean probability of it over the rows that have its label. A row is counted as of the class with the
    highest probability among those that reach their thresholds; where that is not its label, the label is probably wrong. Rows are
    ordered by the probability of their label: where classes are hard to tell apart, as they often are, planted errors come earlier so
    than by margins, or with those first that are counted as of another class.
    """
    names = next(iter(found.values()))[1].names
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for label, chances in _known(found):
        own = np.take_along_axis(chances, label[:, None], axis=1)[:, 0]
        kept = np.isfinite(own)
        sums += np.bincount(label[kept], own[kept], minlength=len(names))
        counts += np.bincount(label[kept], minlength=len(names))
    # Of a class that no row has nothing is known: no row is counted as of it.
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    parts = [_confident(label, chances, thresholds) for label, chances in _known(found)]
    label, suggested, score = (np.concatenate(part) for part in zip(*parts, strict=True))
    text = np.array(names, dtype=object)
    split, row, word = _places(found)
    return Issues(split, row, word, score, suggested != label, text[label], text[suggested])


def _confident(
    label: np.ndarray, chances: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, what each row is counted as of, and the probability of the label."""
    own = np.take_along_axis(chances, label[:, None], axis=1)[:, 0]
    reaching = np.where(chances >= thresholds, chances, -1.0)
    suggested = np.where(reaching.max(axis=1) >= 0, reaching.argmax(axis=1), label)
    # What the model does not see, or says nothing finite of, is no reason to doubt a label.
    known = np.isfinite(chances).all(axis=1)
    return label, np.where(known, suggested, label), np.where(known, own, 1.0)


def _known(found: Found) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield class ids, int64 of shape (rows,), and probabilities, float32 of shape (rows, classes), NaN where there are none."""
    for path, what in found.values():
        for batch in batches(path, ["label", "probabilities"]):
            yield class_ids(batch.column("label"), what.names), matrix(batch.column("probabilities"), len(what.names))


def _of_labels(found: Found) -> Issues:
    """Confident learning of each label for itself, whether a row has it: the least probability of what it says is the row's."""
    names = next(iter(found.values()))[1].names
    sums, counts = np.zeros((2, len(names))), np.zeros((2, len(names)))
    for path, what in found.values():
        for has, chances in of_labels(path, what):
            for side, (mask, values) in enumerate(((has, chances), (~has, 1 - chances))):
                sums[side] += np.where(mask, values, 0).sum(axis=0)
                counts[side] += mask.sum(axis=0)
    with_it, without = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    scores, probable, label, suggested = [], [], list[str](), list[str]()
    for path, what in found.values():
        for has, chances in of_labels(path, what):
            wrong = np.where(has, (1 - chances >= without) & (chances < 0.5), (chances >= with_it) & (chances > 0.5))  # noqa: PLR2004
            scores.append(np.where(has, chances, 1 - chances).min(axis=1))
            probable.append(wrong.any(axis=1))
            label += _joined(has, names)
            suggested += _joined(has ^ wrong, names)
    return Issues(*_places(found), np.concatenate(scores), np.concatenate(probable), label, suggested)


def _joined(has: np.ndarray, names: list[str]) -> list[str]:
    return [", ".join(names[index] for index in np.flatnonzero(row)) for row in has]


_FAR = 3.0
"""Standard deviations of the errors beyond which a number is doubted."""


def _of_amounts(found: Found) -> Issues:
    """Rows by their error, in standard deviations of all errors: of several numbers the largest one. The score is 3 less that."""
    parts = [amounts(batch, what) for path, what in found.values() for batch in batches(path, ["label", "prediction"])]
    actual, predicted = (np.concatenate(part) for part in zip(*parts, strict=True))
    errors = predicted - actual
    spread = np.sqrt((errors**2).mean(axis=0))
    far = np.abs(errors / np.where(spread > 0, spread, 1)).max(axis=1)
    score = np.where(np.isfinite(far), _FAR - far, -np.inf)
    label, suggested = (
        [", ".join(f"{value:.6g}" for value in row) for row in values.tolist()] for values in (actual, predicted)
    )
    return Issues(*_places(found), score, score < 0, label, suggested)
