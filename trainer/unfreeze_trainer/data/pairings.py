"""Tables whose rows hold what belongs together, in a column for each modality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_api.contracts.resolved import Dataset
from unfreeze_trainer.data.few import hashes_of
from unfreeze_trainer.data.files import CHECKED_FILES, cells_of, located, missing_files
from unfreeze_trainer.data.images import PICTURES, check_pictures
from unfreeze_trainer.data.samples import DataSource, Split, TargetKind, beside, readable, text_cells
from unfreeze_trainer.data.shards import folder_of
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError, some_rows

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = {"image": PICTURES}
"""What lies in the files of a modality; the others stand in the table itself."""


def read_pairings(
    dataset: Dataset,
    where: str,
    *,
    modalities: Sequence[str],
    kind: TargetKind,
    skip: bool = False,
    head: bool = False,
    checked: int = CHECKED_FILES,
) -> DataSource:
    """Read a table with a column for each modality, or its first rows.

    Parameters
    ----------
    dataset, where
        What is read, and what messages start with.
    modalities
        Image, text and so on, in small letters: names of fields of `columns`.
    kind
        Of the targets.
    skip
        Leave out rows that lack a cell; files are looked at when it is their turn.
    head, checked
        As of `read_images`.

    Returns
    -------
    DataSource
        Its inputs are structs of the cells of each row by modality, its targets the numbers of these.

    Raises
    ------
    JobError
        InvalidData: a cell is missing, or a file cannot be read.
    """
    import pyarrow as pa

    unread = Unread(where, skip=skip)
    names = {modality: str(getattr(dataset.columns, modality)) for modality in modalities}
    table = read_table(dataset.path, [*names.values()], where, unread, head=head)
    total = table.num_rows + len(unread)
    if not total:
        raise JobError("InvalidData", f"{where}: no samples; the file has no rows")
    numbers = unread.others(total)
    cells = {
        modality: _cells(modality, table[name], name, numbers=numbers, unread=unread, where=where)
        for modality, name in names.items()
    }
    found = [pa.chunked_array([_numbers(column)]) for column in cells.values()]
    source = DataSource(
        dataset, where, beside([*cells.values()], list(cells)), beside(found, list(cells)), numbers=numbers
    )
    source = readable(source, unread, total, head=head, kind=kind)
    parts = {modality: part_of(source, modality) for modality in modalities}
    for modality, files in COLUMNS.items():
        if modality in parts and parts[modality].inputs.type in (pa.string(), pa.large_string(), pa.string_view()):
            parts[modality] = located(files, parts[modality], folder_of(dataset.path), skip=skip)
    if "image" in parts and not skip:
        check_pictures(parts["image"], checked)
    return replace(source, inputs=beside([part.inputs for part in parts.values()], list(parts)))


def _cells(
    modality: str, column: pa.ChunkedArray, name: str, *, numbers: np.ndarray, unread: Unread, where: str
) -> pa.ChunkedArray:
    """Return a column's cells as they are read; rows without one are added to `unread`."""
    if modality not in COLUMNS:
        return text_cells(column, name, numbers, unread, where)
    kind = COLUMNS[modality]
    cells = cells_of(kind, column, name, where)
    missing = numbers[missing_files(cells)].tolist()
    it = "it" if len(missing) == 1 else "them"
    message = f"{where}: no {kind.one} in column {name!r} of {some_rows(missing)}; remove {it}"
    unread.add(missing, JobError("InvalidData", message))
    return cells


def _numbers(column: pa.ChunkedArray) -> pa.Array:
    """Return the number of each cell, the same for equal ones."""
    import pyarrow as pa

    _, numbers = np.unique(hashes_of(column), return_inverse=True)
    return pa.array(numbers.astype(np.int64))


def part_of(source: DataSource, modality: str) -> DataSource:
    """Return a source with the cells of one modality alone."""
    import pyarrow as pa
    import pyarrow.compute as pc

    inputs = pc.struct_field(source.inputs, modality)
    inputs = inputs if isinstance(inputs, pa.ChunkedArray) else pa.chunked_array([inputs])
    files = modality in COLUMNS and not pa.types.is_struct(inputs.type)
    return replace(source, inputs=inputs, files=files and not pa.types.is_binary(inputs.type))


def shared(split: Split, other: Split) -> np.ndarray:
    """Return which samples of a split have a cell that stands in another one, bool of shape (samples,)."""
    found = np.zeros(len(split), dtype=bool)
    for field in split.source.inputs.type:
        mine, theirs = (hashes_of(part_of(one.source, field.name).inputs)[one.rows] for one in (split, other))
        found |= np.isin(mine, theirs)
    return found
