"""predictions/*.parquet: what a finished model says of each row of a split, beside what the data says.

Rows are written a group at a time, so that neither writer nor reader holds a whole split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from unfreeze_api.grammar.model import Model
from unfreeze_trainer.objectives.answers import KINDS, Answers, Kind

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "predictions"
"""Below the run folder."""
_KEY = b"unfreeze"
"""Of the schema's metadata; its value is an `About` as JSON."""


class About(Model):
    """What a file of predictions is of."""

    format: int = 1
    split: str | None = None
    """validation or test; None for what a model was asked of other data."""
    source: str | None = None
    """Where the rows lie, as in the manifest."""
    step: int | None = None
    """Of the run, that the weights are from."""
    task: str = ""
    """Type of the task."""
    kind: Kind | Literal["Texts"]
    """What the answers are: OneOf, AnyOf or Amounts; or Texts, which a model has written."""
    names: list[str]
    """What each output stands for: labels in the order of `probabilities`, or names of the targets of a regression."""
    unseen: str | None = None
    """What is predicted of a row that the model does not see."""

    @property
    def answers(self) -> Answers:
        """What makes columns of a model's outputs, which are no texts."""
        if self.kind == "Texts":
            raise ValueError("texts are no columns of outputs")
        return KINDS[self.kind](self.names, unseen=self.unseen)


class PredictionsWriter:
    """Writes a file of predictions: to be used as a context, which closes it and flushes it to the disk.

    Parameters
    ----------
    path
        Of the file.
    about
        What it is of. The same rows give the same bytes.
    """

    def __init__(self, path: Path, about: About) -> None:
        self._about = about
        self._file = path.open("wb")
        self._writer: Any = None

    def write(self, columns: Mapping[str, pa.Array]) -> None:
        """Write rows, as a group of their own; all groups have the columns of the first."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        batch = pa.table(dict(columns))
        if self._writer is None:
            schema = batch.schema.with_metadata({_KEY: self._about.to_json().encode()})
            encoded = [name for name in schema.names if name not in ("confidence", "probabilities", "row")]
            self._writer = pq.ParquetWriter(self._file, schema, compression="zstd", use_dictionary=encoded)
        self._writer.write_table(batch.cast(self._writer.schema), row_group_size=max(1, len(batch)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            self._file.close()


def about(path: Path) -> About | None:
    """Return what a file of predictions is of; None where there is none, or it is no such file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return About.model_validate_json((pq.read_schema(path).metadata or {}).get(_KEY, b""))
    except (OSError, ValueError, pa.ArrowException):
        return None


def columns_of(path: Path) -> list[str]:
    """Return the names of the columns of a file of predictions."""
    import pyarrow.parquet as pq

    names: list[str] = pq.read_schema(path).names
    return names


def batches(path: Path, columns: list[str] | None = None, rows: int = 65536) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file of predictions, some at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=rows, columns=columns)


def matrix(column: pa.Array, width: int) -> np.ndarray:
    """Return a column of lists of the same length as an array of shape (rows, width); NaN where there is none."""
    values = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    if not column.null_count:
        return values
    whole = np.full((len(column), width), np.nan, dtype=values.dtype)
    whole[column.is_valid().to_numpy(zero_copy_only=False)] = values
    return whole


def class_ids(column: pa.Array, names: list[str]) -> np.ndarray:
    """Return the indices of a column's texts among names, int64 of shape (rows,); -1 of none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(column.cast(pa.string()), value_set=pa.array(names, pa.string()))
    return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
