"""What samples are to become, as numbers: read from a column, learned from the training data. Nothing here needs torch.

Each kind is a file, named by the API's `TaskType.targets`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
from pydantic.alias_generators import to_snake

from unfreeze_api.grammar.model import Model
from unfreeze_trainer.errors import JobError, some_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from unfreeze_api.contracts.resolved import Columns

_Read = TypeVar("_Read")


@dataclass(frozen=True, eq=False)
class Targets:
    """What each of some samples is to become."""

    values: np.ndarray
    """As its objective takes it, of shape (samples, ...)."""
    units: np.ndarray
    """How many units of the loss each sample has, int64 of shape (samples,): a step's loss is their mean."""
    groups: np.ndarray
    """Which group each sample is of, int64 of shape (samples,): parts that are held out keep the groups' shares."""

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: np.ndarray) -> Targets:
        """Return those of some samples, by their indices."""
        return Targets(self.values[rows], self.units[rows], self.groups[rows])


class Encoder(ABC, Generic[_Read]):
    """Knows, from the training data, what there is to predict.

    Parameters
    ----------
    train
        What `read` has made of the training data's column.
    where
        What messages about the training data start with.

    Raises
    ------
    JobError
        InvalidData: there is nothing to learn.
    """

    labels: list[str]
    """What there is to tell apart, in the order of class ids; empty where nothing is."""

    @classmethod
    def with_options(cls, options: Model | None) -> type[Self]:  # noqa: ARG003 - of those that have some
        """Return the encoder that reads as a task's options say."""
        return cls

    @abstractmethod
    def __init__(self, train: _Read, where: str) -> None: ...

    together: ClassVar[str] = ""
    """What rows of a group share, where it is held out whole or not at all; empty where each part keeps the groups' shares."""
    holds: ClassVar[str] = ""
    """What each row is learned as, where nothing in it says that it is none; empty where its target does."""
    scored: ClassVar[bool] = False
    """Whether another way to learn the rows takes how far they are that."""
    cells: ClassVar[Literal["Numbers", "Lists"] | None] = None
    """What else than a text, a whole number or a boolean a cell holds."""

    @staticmethod
    def columns(names: Columns) -> list[str]:
        """Return the columns of a table that hold the targets."""
        return [names.label]

    @staticmethod
    def broken(
        column: pa.ChunkedArray, name: str, where: str, numbers: np.ndarray
    ) -> Iterator[tuple[list[int], JobError]]:
        """Yield the rows that cannot be read, as indices in the file, each time with the error about them.

        Parameters
        ----------
        column, name, where
            As of `read`.
        numbers
            Index in the file of each row.
        """
        rows = numbers[missing_rows(column)].tolist()
        yield rows, no_target(rows, name, where)

    @staticmethod
    @abstractmethod
    def read(column: pa.ChunkedArray, name: str, where: str) -> _Read:
        """Read a source's column, without regard to the training data.

        Parameters
        ----------
        column
            Cells, none of which is missing where such rows are skipped; of several columns structs.
        name, where
            Of the column, or of several with commas, and what messages start with.

        Raises
        ------
        JobError
            InvalidData: it holds something else; a cell is missing.
        """

    @abstractmethod
    def encode(self, read: _Read, where: str, numbers: np.ndarray | None = None) -> Targets:
        """Turn what was read into numbers.

        Parameters
        ----------
        read, where
            Of a source.
        numbers
            Index in the file of each row, where some were left out.

        Raises
        ------
        JobError
            InvalidData: the training data has nothing like it.
        """

    def strange(self, read: _Read) -> np.ndarray:  # noqa: ARG002 - of those that have labels
        """Return the indices of rows with labels that the training data does not have, int64: `encode` refuses them."""
        return np.zeros(0, dtype=np.int64)

    def doubts(self) -> Iterator[str]:
        """Yield what is strange about what there is to tell apart in the training data, in sentences for people."""
        yield from ()

    def fit(self, train: Targets, where: str) -> None:
        """Learn what depends on which samples are trained on: statistics of the training split.

        Raises
        ------
        JobError
            InvalidData: there is nothing to learn.
        """


def encoder(kind: str) -> type[Encoder[Any]]:
    """Return the encoder of a kind of targets, such as Labels."""
    found: type[Encoder[Any]] = getattr(importlib.import_module(f"{__name__}.{to_snake(kind)}"), kind)
    return found


def is_text(kind: pa.DataType) -> bool:
    """Return whether cells of a type are texts."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def missing_rows(column: pa.ChunkedArray) -> np.ndarray:
    """Return the indices of cells that are null or NaN, or text without a word, int64."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found, start = [np.empty(0, np.int64)], 0
    for chunk in getattr(column, "chunks", [column]):  # one after another: a column may be larger than memory
        cells = chunk.cast(chunk.type.value_type) if pa.types.is_dictionary(chunk.type) else chunk
        missing = pc.is_null(cells, nan_is_null=True)
        if is_text(cells.type):
            missing = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(cells), ""), True)
        found.append(np.flatnonzero(missing.to_numpy(zero_copy_only=False)) + start)
        start += len(chunk)
    return np.concatenate(found)


def no_target(rows: Sequence[int], name: str, where: str) -> JobError:
    """Return the error about rows, as indices from 0, without a label in a column."""
    it = "it" if len(rows) == 1 else "them"
    return JobError("InvalidData", f"{where}: no label in column {name!r} of {some_rows(rows)}; fill in or remove {it}")
