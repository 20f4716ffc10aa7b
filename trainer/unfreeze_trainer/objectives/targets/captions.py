"""Pictures and the texts that belong to them: of each row, which picture and text it has, and the class that the picture shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_trainer.objectives.targets import Encoder, Targets, missing_rows
from unfreeze_trainer.objectives.targets.labels import encode_labels
from unfreeze_trainer.objectives.targets.pairings import ABSENT, Pairings, connected

if TYPE_CHECKING:
    import pyarrow as pa

    from unfreeze_api.contracts.resolved import Columns


@dataclass(frozen=True, eq=False)
class Read:
    """What a source's rows have."""

    cells: np.ndarray
    """Numbers of picture and text, int64 of shape (rows, 2)."""
    classes: np.ndarray
    """Index into `names` of each row, int64; ABSENT of rows that say none."""
    names: list[str]
    """The distinct classes, in no order."""


class Captions(Encoder[Read]):
    """The numbers of a row's picture and text, as of Pairings, and that of its class; parts that are held out share no cell.

    Classes are those of all sources that have been read: what is trained on does not limit what can be told by a prompt.
    """

    together = "a picture or a text"

    def __init__(self, train: Read, where: str) -> None:  # noqa: ARG002 - what is wrong is seen in the training split
        self.labels = []
        self.classes = list(train.names) if not len(train.cells) else []
        """Names of the classes, by number."""

    @staticmethod
    def columns(names: Columns) -> list[str]:
        """Return the column with the names of classes, where it is named."""
        return [names.class_name] if names.class_name else []

    @staticmethod
    def read(column: pa.ChunkedArray, name: str, where: str) -> Read:
        """Return what the rows have. JobError InvalidData where a class is no label."""
        import pyarrow as pa

        [image, text, *classes] = column.flatten()
        cells = np.stack([part.to_numpy().astype(np.int64) for part in (image, text)], axis=1)
        found = np.full(len(cells), ABSENT, dtype=np.int64)
        if not classes:
            return Read(cells, found, [])
        there = np.setdiff1d(np.arange(len(cells)), missing_rows(classes[0]))
        codes, names = encode_labels(classes[0].take(pa.array(there)), name, where)
        found[there] = codes
        return Read(cells, found, names)

    def encode(self, read: Read, where: str, numbers: np.ndarray | None = None) -> Targets:  # noqa: ARG002
        """Return numbers of picture, text and class, int64 of shape (rows, 3); each row is a unit, those with a cell in common a group."""
        self.classes += sorted({*read.names} - {*self.classes})
        places = {name: place for place, name in enumerate(self.classes)}
        ids = np.array([*map(places.__getitem__, read.names), ABSENT], dtype=np.int64)
        values = np.concatenate([read.cells, ids[read.classes][:, None]], axis=1)
        return Targets(values, np.ones(len(values), dtype=np.int64), connected(read.cells))

    def fit(self, train: Targets, where: str) -> None:
        """Raise JobError InvalidData where all rows are one group."""
        Pairings.fit(self, train, where)  # type: ignore[arg-type]
