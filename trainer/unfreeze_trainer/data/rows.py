"""Where samples stand and what they read, as columns of a table of predictions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_trainer.data.samples import DataSource
from unfreeze_trainer.data.shards import folder_of
from unfreeze_trainer.data.web_dataset import is_reference

if TYPE_CHECKING:
    import pyarrow as pa


def row_columns(source: DataSource, rows: np.ndarray, count: np.ndarray, *, words: bool) -> dict[str, pa.Array]:
    """Return `row`, and `word` where a sample has several rows of predictions: both counted from 1, int64.

    Parameters
    ----------
    source, rows
        Indices of samples into a source. Its rows are those that messages name; of a folder they are the places of its files,
        sorted by label and path.
    count
        How many rows of predictions each has, int64 of shape (samples,).
    words
        Whether these are words.
    """
    import pyarrow as pa

    numbers = rows if source.numbers is None else source.numbers[rows]
    found = {"row": pa.array(np.repeat(numbers + 1, count))}
    if words:
        starts = np.repeat(np.cumsum(count) - count, count)
        found["word"] = pa.array(np.arange(len(starts)) - starts + 1)
    return found


def input_columns(source: DataSource, rows: np.ndarray) -> dict[str, pa.Array]:
    """Return `text`, and `textPair` of pairs, or `file`, relative to the source, of some samples; none of bytes in a table."""
    import pyarrow as pa

    cells = source.inputs.take(pa.array(rows)).combine_chunks()
    cells = cells if isinstance(cells, pa.Array) else cells.chunk(0)
    kind = cells.type
    if is_reference(kind):
        parts = zip(*(cells.field(name).to_pylist() for name in ("shard", "member")), strict=True)
        return {"file": pa.array([f"{os.path.basename(shard)}/{member}" for shard, member in parts], pa.large_string())}  # noqa: PTH119
    if pa.types.is_struct(kind):
        return dict(zip(("text", "textPair"), (part.cast(pa.large_string()) for part in cells.flatten()), strict=True))
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        return {}
    if not source.files:
        return {"text": cells.cast(pa.large_string())}
    root = folder_of(source.dataset.path)
    return {"file": pa.array([os.path.relpath(file, root) for file in cells.to_pylist()], pa.large_string())}
