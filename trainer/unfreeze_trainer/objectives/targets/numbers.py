"""One or more numbers for each sample: cells of any numeric type, or text that is a number, and their statistics."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze_trainer.errors import JobError, quoted, some_rows
from unfreeze_trainer.objectives.targets import Encoder, Targets

if TYPE_CHECKING:
    import pyarrow as pa

    from unfreeze_api.contracts.resolved import Columns

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = 1e-30
"""Least standard deviation: weights that are multiplied by it are still exact in float32."""
_STEP = float(np.finfo(np.float32).eps)
_COARSE = 0.01
"""Standard deviations that neighbours in float32 may differ by."""


@dataclass(frozen=True, eq=False)
class Read:
    """The numbers of a source."""

    values: np.ndarray
    """float64 of shape (rows, targets)."""
    names: list[str]
    """Of the columns."""


class Numbers(Encoder[Read]):
    """The numbers as they are, with mean and standard deviation of each column over the training split."""

    cells = "Numbers"

    def __init__(self, train: Read, where: str) -> None:  # noqa: ARG002 - what is wrong is seen in the training split
        self.labels = []
        self.names = train.names
        """Names of the columns, those of the training data."""
        self.mean, self.std = np.zeros(len(self.names)), np.ones(len(self.names))
        """float64 of shape (targets,), once `fit` is done."""

    @staticmethod
    def columns(names: Columns) -> list[str]:
        """Return the columns that columns.values names, or the one of columns.value."""
        return list(dict.fromkeys(names.values or [names.value]))

    @staticmethod
    def broken(
        column: pa.ChunkedArray, name: str, where: str, numbers: np.ndarray
    ) -> Iterator[tuple[list[int], JobError]]:
        """Yield the rows of each column with a cell that is missing or no finite number, with an error about the first."""
        for own, cells in _columns(column, name):
            wrong = np.flatnonzero(~np.isfinite(_parsed(cells, own, where)))
            if wrong.size:
                rows = numbers[wrong].tolist()
                yield rows, _no_number(cells[int(wrong[0])].as_py(), own, rows, where)

    @staticmethod
    def read(column: pa.ChunkedArray, name: str, where: str) -> Read:
        """Return the numbers of a source. JobError InvalidData: a cell is missing, no number or not finite."""
        for _, error in Numbers.broken(column, name, where, np.arange(len(column))):
            raise error
        found = _columns(column, name)
        return Read(np.stack([_parsed(cells, own, where) for own, cells in found], axis=1), [own for own, _ in found])

    def encode(self, read: Read, where: str, numbers: np.ndarray | None = None) -> Targets:  # noqa: ARG002 - all rows are numbers
        """Return float64 of shape (rows, targets); each sample is a unit, and all are one group.

        Raises
        ------
        JobError
            InvalidData: there are more or fewer columns than in the training data.
        """
        if len(read.names) != len(self.names):
            raise JobError(
                "InvalidData",
                f"{where}: the columns to predict are {', '.join(read.names)}, and those of the training data"
                f" {', '.join(self.names)}: name as many in columns.values, in the same order",
            )
        if read.names != self.names and sorted(read.names) == sorted(self.names):
            raise JobError(
                "InvalidData",
                f"{where}: the columns to predict are {', '.join(read.names)}, and those of the training data"
                f" {', '.join(self.names)}: name them in the same order in columns.values",
            )
        count = len(read.values)
        return Targets(read.values, np.ones(count, dtype=np.int64), np.zeros(count, dtype=np.int64))

    def fit(self, train: Targets, where: str) -> None:
        """Take mean and standard deviation (of the population) of each column.

        Raises
        ------
        JobError
            InvalidData: a column has one value alone, or values that float32 hardly tells apart.
        """
        values = train.values
        self.mean, self.std = values.mean(axis=0), values.std(axis=0)
        for name, column, std in zip(self.names, values.T, self.std, strict=True):
            low, high = float(column.min()), float(column.max())
            about = f"{where}, column {name!r}: all {len(column)} training samples have"
            if low == high:
                raise JobError(
                    "InvalidData",
                    f"{about} the value {quoted(f'{low:.6g}')}: there is nothing to learn. Is it the right column? Name"
                    " another one in spec.data.train.columns",
                )
            if std < _SMALLEST or max(abs(low), abs(high)) * _STEP > _COARSE * std:
                raise JobError(
                    "InvalidData",
                    f"{about} values between {quoted(f'{low:.12g} and {high:.12g}')}, with a standard deviation of"
                    f" {quoted(f'{float(std):.3g}')}: a model's outputs are float32, which hardly tell them apart. Subtract"
                    " what they have in common, or take another unit",
                )


def _columns(column: pa.ChunkedArray, name: str) -> list[tuple[str, pa.ChunkedArray]]:
    """Return the columns that stand in a column of structs, or itself."""
    import pyarrow as pa

    if not pa.types.is_struct(column.type):
        return [(name, column)]
    parts = column.flatten()
    return [(column.type.field(index).name, part) for index, part in enumerate(parts)]


def _parsed(cells: pa.ChunkedArray, name: str, where: str) -> np.ndarray:
    """Return float64 of shape (rows,), NaN where there is no number, and infinite where float32 has none so large.

    Raises
    ------
    JobError
        InvalidData: the column's type is neither a number's nor text.
    """
    import pyarrow as pa

    kind = cells.type.value_type if pa.types.is_dictionary(cells.type) else cells.type
    cells = cells.cast(kind)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        found = np.array([math.nan if value is None else float(value) for value in cells.to_pylist()])
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        found = np.array([_number(text) for text in cells.to_pylist()])
    elif pa.types.is_null(kind):
        found = np.full(len(cells), math.nan)
    else:
        example = cells[0].as_py() if len(cells) else None
        raise JobError(
            "InvalidData",
            f"{where}: column {name!r} holds {kind} ({quoted(repr(example))}), not numbers. Name another column in"
            " spec.data.<part>.columns",
        )
    found = found.astype(np.float64)
    return np.where(np.abs(found) > _LARGEST, np.inf, found)


def _number(text: str | None) -> float:
    """Return what a cell's text says; NaN for what is no number, though Python takes it for one (1_000, nan)."""
    text = (text or "").strip()
    return float(text) if _NUMBER.fullmatch(text) else math.nan


def _no_number(value: Any, name: str, rows: list[int], where: str) -> JobError:
    """Return the error about rows without a number; `value` is the first one's."""
    more = f"; so {'has' if len(rows) == 2 else 'have'} {some_rows(rows[1:])}" if len(rows) > 1 else ""  # noqa: PLR2004
    place = f"{where}: row {rows[0] + 1}, column {name!r}"
    it = "them" if more else "it"
    text = value.strip() if isinstance(value, str) else value
    if text is None or text == "":
        return JobError("InvalidData", f"{place}: no number{more}. Fill in or remove {it}")
    shown = quoted(repr(value if len(repr(value)) <= 60 else repr(value)[:60]))  # noqa: PLR2004
    if not isinstance(text, str) or _NUMBER.fullmatch(text) or text.lstrip("+-").lower() in _NOT_FINITE:
        what = f"{shown} is no finite number, or one beyond float32's {_LARGEST:.3g}"
    elif _NUMBER.fullmatch(text.replace(",", ".")):
        what = f"{shown} is no number: decimals have a point"
    else:
        what = f"{shown} is no number"
    return JobError("InvalidData", f"{place}: {what}{more}. Correct or remove {it}")


_NOT_FINITE = frozenset({"nan", "inf", "infinity"})
