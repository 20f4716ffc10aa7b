"""Which texts belong together: by pairs, by pairs with a score, or by labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from unfreeze_api.grammar.model import Model
from unfreeze_trainer.errors import JobError, quoted, some_rows
from unfreeze_trainer.objectives.targets import Encoder, Targets
from unfreeze_trainer.objectives.targets.labels import Codes, Labels
from unfreeze_trainer.objectives.targets.numbers import Numbers, Read

if TYPE_CHECKING:
    import pyarrow as pa

    from unfreeze_api.contracts.resolved import Columns


class Relations(Encoder[np.ndarray]):
    """Of pairs: the id of each text of a row, the same for equal texts of a source."""

    holds, scored = "a pair that belongs together", True

    @classmethod
    def with_options(cls, options: Model | None) -> type[Encoder[Any]]:  # type: ignore[override]
        """Return the encoder of what a table of this annotation says."""
        kinds: dict[str, type[Encoder[Any]]] = {"Scores": Scores.with_options(options), "Labels": Groups}
        return kinds.get(getattr(options, "annotation", ""), cls)

    def __init__(self, train: np.ndarray, where: str) -> None:  # noqa: ARG002 - what is wrong is seen in the training split
        self.labels = []

    @staticmethod
    def columns(names: Columns) -> list[str]:
        """Return the columns of the texts of a row: anchor, positive and, where it is named, negative."""
        return [names.anchor, names.positive, *([names.negative] if names.negative else [])]

    @staticmethod
    def read(column: pa.ChunkedArray, name: str, where: str) -> np.ndarray:  # noqa: ARG004 - texts have been read
        """Return the ids of a source's texts, int64 of shape (rows, texts)."""
        import pyarrow as pa

        parts = [part.cast(pa.large_string()) for part in column.flatten()]
        ids = pa.concat_arrays([chunk for part in parts for chunk in part.chunks]).dictionary_encode().indices
        return ids.to_numpy().astype(np.int64).reshape(len(parts), -1).T.copy()

    def encode(self, read: np.ndarray, where: str, numbers: np.ndarray | None = None) -> Targets:  # noqa: ARG002
        """Return the ids, int64 of shape (rows, texts); each row is a unit, and all are one group."""
        return _ungrouped(read)

    def fit(self, train: Targets, where: str) -> None:
        """Raise JobError InvalidData where all positives are one text: nothing is there that a pair could be told from."""
        if len(np.unique(train.values[:, 1:])) == 1:
            raise JobError(
                "InvalidData",
                f"{where}: the {len(train)} training pairs have one text alone that belongs to others, and it is compared with"
                " the texts of other pairs: name another column in columns.positive, or give more pairs",
            )


class Scores(Numbers):
    """How similar the texts of each row are, as they are."""

    cosines: ClassVar[bool] = True
    """Whether they are to be cosines, which lie between -1 and 1."""

    @classmethod
    def with_options(cls, options: Model | None) -> type[Scores]:
        """Return the encoder that takes the scores that the loss of a task's options does."""
        return type(cls.__name__, (cls,), {"cosines": getattr(options, "loss", None) != "CoSENT"})

    def encode(self, read: Read, where: str, numbers: np.ndarray | None = None) -> Targets:
        """Return the scores, float64 of shape (rows, 1); each row is a unit, and all are one group.

        Raises
        ------
        JobError
            InvalidData: one is no cosine where it is to be one.
        """
        beyond = np.flatnonzero(np.abs(read.values[:, 0]) > 1) if self.cosines else np.zeros(0, dtype=np.int64)
        if beyond.size:
            rows = beyond if numbers is None else numbers[beyond]
            raise JobError(
                "InvalidData",
                f"{where}, column {read.names[0]!r}, {some_rows(rows.tolist())}: {quoted(f'{read.values[beyond[0], 0]:g}')} is no"
                " cosine, which lies between -1 and 1: divide the scores by the highest one, or set"
                " spec.task.textEmbedding.loss to CoSENT, which takes any",
            )
        return super().encode(read, where, numbers)

    @staticmethod
    def columns(names: Columns) -> list[str]:
        """Return the column of the score."""
        return [names.score]


class Groups(Labels):
    """The label of each text: texts of one label belong together."""

    def __init__(self, train: Codes, where: str) -> None:
        if len(set(train.names)) == 1:
            raise JobError(
                "InvalidData",
                f"{where}: all {len(train.codes)} texts have the label {quoted(repr(train.names[0]))}, and those of one label are"
                " held against those of others: two labels are needed at least",
            )
        super().__init__(train, where)


def _ungrouped(values: np.ndarray) -> Targets:
    return Targets(values, np.ones(len(values), dtype=np.int64), np.zeros(len(values), dtype=np.int64))
