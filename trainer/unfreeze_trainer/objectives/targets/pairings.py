"""What belongs together across modalities: of each row, which cell of each column it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.objectives.targets import Encoder, Targets

if TYPE_CHECKING:
    import pyarrow as pa

    from unfreeze_api.contracts.resolved import Columns


ABSENT = -1
"""The number of a cell that a row lacks."""


class Pairings(Encoder[np.ndarray]):
    """The number of each cell of a row, the same for equal cells of a column, ABSENT for those that it lacks; parts that are held out share none of them."""

    together: ClassVar[str] = "a picture, a text or a clip"

    def __init__(self, train: np.ndarray, where: str) -> None:  # noqa: ARG002 - what is wrong is seen in the training split
        self.labels = []

    @staticmethod
    def columns(names: Columns) -> list[str]:  # noqa: ARG004 - which ones is the towers' affair, and their reader's
        """Return no column: the reader has made the numbers of what the towers read."""
        return []

    @staticmethod
    def read(column: pa.ChunkedArray, name: str, where: str) -> np.ndarray:  # noqa: ARG004 - cells have been read
        """Return the numbers, int64 of shape (rows, modalities)."""
        return np.stack([part.fill_null(ABSENT).to_numpy().astype(np.int64) for part in column.flatten()], axis=1)

    def encode(self, read: np.ndarray, where: str, numbers: np.ndarray | None = None) -> Targets:  # noqa: ARG002
        """Return the numbers; each row is a unit, and rows that have a cell in common, by others too, are a group."""
        return Targets(read, np.ones(len(read), dtype=np.int64), connected(read))

    def fit(self, train: Targets, where: str) -> None:
        """Raise JobError InvalidData where all rows are one group: nothing is there that a row could be told from."""
        if len(np.unique(train.groups)) == 1:
            raise JobError(
                "InvalidData",
                f"{where}: the {len(train)} training rows all have a cell in common, by others if not with each other, and each is"
                " learned by what does not belong to it: give more rows, or name other columns",
            )


def connected(cells: np.ndarray) -> np.ndarray:
    """Return the group of each row, int64 of shape (rows,): those with a cell in common are in one, numbered from 0.

    Parameters
    ----------
    cells
        Numbers of cells, (rows, columns), each column on its own; ABSENT ones are nobody's in common.
    """
    groups = np.arange(len(cells), dtype=np.int64)
    own = -1 - groups  # a number for each row
    columns = [np.unique(np.where(column == ABSENT, own, column), return_inverse=True)[1] for column in cells.T]
    while True:
        before = groups
        for column in columns:
            lowest = np.full(int(column.max(initial=-1)) + 1, len(cells), dtype=np.int64)
            np.minimum.at(lowest, column, groups)
            groups = lowest[column]
        if np.array_equal(groups, before):
            return np.unique(groups, return_inverse=True)[1].astype(np.int64)
