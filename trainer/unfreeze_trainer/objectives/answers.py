"""What a model's outputs say, in the words of the data: the columns of a table of predictions. It knows no model.

Each kind of answer is made of names alone, so that whoever has a model's outputs gets from it what a run wrote.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

ABSENT, ANSWERED, UNSEEN = 0, 1, 2
"""States of a row: its sample could not be read; the model has an answer; it does not see it, as a word beyond maxLength."""
Kind = Literal["OneOf", "AnyOf", "Amounts"]


class Answers(ABC):
    """Columns of predictions, and of the labels beside them.

    Parameters
    ----------
    names
        What each output of the model stands for.
    unseen
        What is predicted of a row that the model does not see; None for nothing.
    """

    kind: ClassVar[Kind]
    dtype: ClassVar[type[np.floating]] = np.float32
    """Of the outputs that are kept."""

    def __init__(self, names: Sequence[str], *, unseen: str | None = None) -> None:
        self.names, self.unseen = list(names), unseen

    @property
    def width(self) -> int:
        """How many outputs a row has."""
        return len(self.names)

    @abstractmethod
    def columns(self, outputs: np.ndarray, seen: np.ndarray | None = None) -> dict[str, pa.Array]:
        """Return what the outputs say.

        Parameters
        ----------
        outputs
            Of shape (rows, outputs): logits, or numbers in the units of the data.
        seen
            Which rows the model sees, bool of shape (rows,); None where it sees all.
        """

    @abstractmethod
    def labels(self, values: np.ndarray) -> pa.Array:
        """Return what the data says of some samples, whose targets are given as `Targets.values` has them."""


class OneOf(Answers):
    """One of several classes: `prediction`, its probability `confidence`, and `probabilities`, one for each class.

    Of an unseen row the prediction is `unseen`, and there are no probabilities.
    """

    kind = "OneOf"

    def columns(self, outputs: np.ndarray, seen: np.ndarray | None = None) -> dict[str, pa.Array]:
        """Return prediction, confidence and probabilities (softmax, float32) of logits."""
        chances = softmax(outputs)
        found = outputs.argmax(axis=1).astype(np.int32)
        confidence = np.take_along_axis(chances, found[:, None], axis=1)[:, 0]
        if seen is None:
            return self._table(found, confidence, chances)
        found[~seen] = self.names.index(self.unseen) if self.unseen is not None else -1
        return self._table(found, confidence, chances, hidden=~seen)

    def _table(
        self, found: np.ndarray, confidence: np.ndarray, chances: np.ndarray, hidden: np.ndarray | None = None
    ) -> dict[str, pa.Array]:
        import pyarrow as pa

        return {
            "prediction": self._named(found),
            "confidence": pa.array(confidence, mask=hidden),
            "probabilities": _lists(chances, hidden),
        }

    def _named(self, ids: np.ndarray) -> pa.Array:
        import pyarrow as pa

        ids = ids.astype(np.int32)
        return pa.DictionaryArray.from_arrays(pa.array(ids, mask=ids < 0), pa.array(self.names, pa.string()))

    def labels(self, values: np.ndarray) -> pa.Array:
        """Return the labels of class ids, of shape (samples,), or of arrays of them, which follow each other."""
        return self._named(np.concatenate([np.empty(0, np.int32), *values]) if values.dtype == object else values)


class AnyOf(Answers):
    """Any number of labels: lists `label` and `prediction`, and `probabilities`, one for each label."""

    kind = "AnyOf"
    thresholds: np.ndarray | None = None
    """Probability of each label from which on it is predicted, float64 of shape (labels,); None for all that are above 0.5."""

    def columns(self, outputs: np.ndarray, seen: np.ndarray | None = None) -> dict[str, pa.Array]:  # noqa: ARG002
        """Return predictions (logits above 0, or probabilities from the thresholds on) and probabilities (sigmoid, float32)."""
        chances = sigmoid(outputs)
        has = outputs > 0 if self.thresholds is None else chances >= self.thresholds
        return {"prediction": self._sets(has), "probabilities": _lists(chances)}

    def labels(self, values: np.ndarray) -> pa.Array:
        """Return the labels of class ids, of shape (samples, most labels), filled up with -1."""
        has = np.zeros((len(values), self.width), dtype=bool)
        rows, places = np.nonzero(values >= 0)
        has[rows, values[rows, places]] = True
        return self._sets(has)

    def _sets(self, has: np.ndarray) -> pa.Array:
        import pyarrow as pa

        rows, ids = np.nonzero(has)
        ends = np.cumsum(np.bincount(rows, minlength=len(has)))
        names = pa.array(self.names, pa.string()).take(pa.array(ids))
        return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int32()), names)


class Amounts(Answers):
    """Numbers in the units of the data: `label` and `prediction`, float64; of several targets lists in their order."""

    kind = "Amounts"
    dtype = np.float64

    def columns(self, outputs: np.ndarray, seen: np.ndarray | None = None) -> dict[str, pa.Array]:  # noqa: ARG002
        """Return the predictions."""
        return {"prediction": self._numbers(outputs)}

    def labels(self, values: np.ndarray) -> pa.Array:
        """Return the numbers of some samples, of shape (samples, targets)."""
        return self._numbers(values)

    def _numbers(self, values: np.ndarray) -> pa.Array:
        import pyarrow as pa

        values = np.ascontiguousarray(values, dtype=np.float64)
        return pa.array(values[:, 0]) if self.width == 1 else _lists(values)


KINDS: dict[Kind, type[Answers]] = {kind.kind: kind for kind in (OneOf, AnyOf, Amounts)}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of classes, float32 of the same shape (rows, classes)."""
    values = logits.astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    np.exp(values, out=values)
    values /= values.sum(axis=1, keepdims=True)
    return values.astype(np.float32)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of labels, each for itself, float32 of the same shape."""
    values = np.exp(-np.abs(logits.astype(np.float64)))
    return np.where(logits < 0, values / (1 + values), 1 / (1 + values)).astype(np.float32)


def _lists(values: np.ndarray, hidden: np.ndarray | None = None) -> pa.Array:
    """Return a list for each row, null where it is hidden."""
    import pyarrow as pa

    count, width = values.shape
    if hidden is not None:
        ends = np.cumsum(np.where(hidden, 0, width))
        mask = pa.array(hidden)
        offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
        return pa.ListArray.from_arrays(offsets, pa.array(values[~hidden].reshape(-1)), mask=mask)
    return pa.ListArray.from_arrays(
        pa.array(np.arange(count + 1) * width, pa.int32()), pa.array(np.ascontiguousarray(values).reshape(-1))
    )
