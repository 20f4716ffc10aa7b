"""Rows of predictions, written as CSV, JSON lines or Parquet: into a file that is there whole or not at all, or to a pipe."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import click

from unfreeze_api.commands import whole
from unfreeze_trainer.exports.predictions import About, PredictionsWriter

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("csv", "jsonl", "parquet")
_DIGITS = 9
"""Of a float32, with which it is read back as it was."""


class Rows(Protocol):
    """Takes rows."""

    def write(self, columns: Mapping[str, pa.Array]) -> None:
        """Write some, whose columns are those of the first."""


class _Csv:
    """Lists as JSON has them, what is missing empty."""

    def __init__(self, file: IO[str]) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._begun = False

    def write(self, columns: Mapping[str, pa.Array]) -> None:
        if not self._begun:
            self._writer.writerow(columns)
            self._begun = True
        cells = [[_cell(value) for value in _values(column)] for column in columns.values()]
        self._writer.writerows(zip(*cells, strict=True))


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else value


class _JsonLines:
    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, columns: Mapping[str, pa.Array]) -> None:
        for row in zip(*map(_values, columns.values()), strict=True):
            self._file.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n")


def _values(column: pa.Array) -> Iterator[Any]:
    """Yield values as JSON has them, a float32 with as many digits as it has."""
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_list(column.type) else column.type
    if not pa.types.is_float32(kind):
        yield from column.to_pylist()
        return
    for value in column.to_pylist():
        yield [_short(one) for one in value] if isinstance(value, list) else _short(value)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")


@contextmanager
def opened(output: Path | None, kind: str, about: About | None, *, force: bool) -> Iterator[Rows]:
    """Open what takes rows.

    Parameters
    ----------
    output
        The file; standard output where None.
    kind
        One of FORMATS.
    about
        What the rows are of; Parquet needs it.
    force
        Whether a file that is there is replaced.

    Raises
    ------
    click.ClickException
        A file that is there already.
    """
    if output is None:
        yield _Csv(sys.stdout) if kind == "csv" else _JsonLines(sys.stdout)
        return
    if output.exists() and not force:
        raise click.ClickException(f"{output} is there already: --force overwrites it, --output names another file")
    with whole(output) as aside:
        if kind == "parquet":
            assert about is not None
            with PredictionsWriter(aside, about) as writer:
                yield writer
        else:
            with aside.open("w", encoding="utf-8", newline="") as file:
                yield _Csv(file) if kind == "csv" else _JsonLines(file)
