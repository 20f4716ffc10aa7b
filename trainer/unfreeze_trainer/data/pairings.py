"""Tables whose rows hold what belongs together, in a column for each modality."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_api.contracts.resolved import Dataset
from unfreeze_trainer.data.audio import CLIPS, check_clips
from unfreeze_trainer.data.few import hashes_of, numbers_of
from unfreeze_trainer.data.files import CHECKED_FILES, FileKind, cells_of, located, missing_files
from unfreeze_trainer.data.images import PICTURES, check_pictures
from unfreeze_trainer.data.json_lines import Cells
from unfreeze_trainer.data.label_names import with_names
from unfreeze_trainer.data.samples import DataSource, Split, TargetKind, beside, readable, text_cells, without_text
from unfreeze_trainer.data.shards import folder_of
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError, some_rows

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = {"image": PICTURES, "audio": CLIPS}
"""What lies in the files of a modality; the others stand in the table itself."""
PICTURE_AND_TEXT = ("image", "text")
"""Modalities of a model that sees and reads."""
_WHOLE = 2
"""So many modalities have to be there in each row; of more a row may lack some."""


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
        Leave out rows that lack a cell, of three modalities those that have one alone; files are looked at when it is their turn.
    head, checked
        As of `read_images`.

    Returns
    -------
    DataSource
        Its inputs are structs of the cells of each row by modality, its targets the numbers of these, null of those that it lacks,
        and the cells of the columns that the kind of targets reads.

    Raises
    ------
    JobError
        InvalidData: a cell is missing, of three modalities in all rows or two in one, or a file cannot be read.
    """
    import pyarrow as pa

    unread = Unread(where, skip=skip)
    names = {modality: str(getattr(dataset.columns, modality)) for modality in modalities}
    kinds: dict[str, Cells | None] = dict.fromkeys(names.values(), "Optional" if len(modalities) > _WHOLE else None)
    others = kind.columns(dataset.columns)
    kinds |= dict.fromkeys((name for name in others if name not in kinds), "Optional")
    table = read_table(
        dataset.path, [*dict.fromkeys([*names.values(), *others])], where, unread, head=head, kinds=kinds
    )
    table = with_names(table, dataset, others)
    total = table.num_rows + len(unread)
    if not total:
        raise JobError("InvalidData", f"{where}: no samples; the file has no rows")
    numbers = unread.others(total)
    lacking = (
        unread if len(modalities) <= _WHOLE else Unread(where, skip=True)
    )  # which of more a row lacks is its own affair
    cells = {
        modality: _cells(modality, table[name], name, numbers=numbers, unread=lacking, where=where)
        for modality, name in names.items()
    }
    if len(modalities) > _WHOLE:
        _require_two(cells, names, numbers=numbers, unread=unread, where=where, whole=not head)
    found = [pa.chunked_array([_numbers(column, modality)]) for modality, column in cells.items()]
    found += [table[name] for name in others]
    targets = beside(found, [*cells, *(f"column {name}" for name in others)])
    source = DataSource(dataset, where, beside([*cells.values()], list(cells)), targets, numbers=numbers)
    source = readable(source, unread, total, head=head, kind=kind)
    parts = {modality: part_of(source, modality) for modality in modalities}
    filled = [
        modality for modality in modalities if not absent(source, modality).all()
    ]  # among the first rows all may lack one
    columns = {modality: _column(source, modality) for modality in modalities}
    for modality, files in COLUMNS.items():
        if modality in filled and parts[modality].inputs.type in (pa.string(), pa.large_string(), pa.string_view()):
            parts[modality] = located(files, parts[modality], folder_of(dataset.path), skip=skip)
            columns[modality] = _emptied(parts[modality].inputs, absent(source, modality))
    for modality, check in (("image", check_pictures), ("audio", check_clips)):
        if modality in filled and not skip:
            check(parts[modality], checked)
    return replace(source, inputs=beside([*columns.values()], list(columns)))


def _cells(
    modality: str, column: pa.ChunkedArray, name: str, *, numbers: np.ndarray, unread: Unread, where: str
) -> pa.ChunkedArray:
    """Return a column's cells as they are read; rows without one are added to `unread`."""
    import pyarrow as pa

    column = column.cast(pa.string()) if pa.types.is_null(column.type) else column
    if modality not in COLUMNS:
        return text_cells(column, name, numbers, unread, where)
    kind: FileKind = COLUMNS[modality]
    cells = cells_of(kind, column, name, where)
    missing = numbers[missing_files(cells)].tolist()
    message = f"{where}: no {kind.one} in column {name!r} of {some_rows(missing)}; remove {_them(missing)}"
    unread.add(missing, JobError("InvalidData", message))
    return cells


def _require_two(
    cells: Mapping[str, pa.ChunkedArray],
    names: Mapping[str, str],
    *,
    numbers: np.ndarray,
    unread: Unread,
    where: str,
    whole: bool,
) -> None:
    """Add rows to `unread` that have one cell or none. JobError InvalidData where a column of a whole table has none at all."""
    lacking = {modality: _absent(column, modality) for modality, column in cells.items()}
    for modality, without in lacking.items():
        if whole and len(without) and without.all():
            raise JobError(
                "InvalidData",
                f"{where}: column {names[modality]!r} is empty in all rows: fill it in where there is something, or remove the"
                f" towers that read it",
            )
    rows = numbers[sum(1 - without.astype(int) for without in lacking.values()) < _WHOLE].tolist()
    said = f"fewer than two of the columns {', '.join(map(repr, names.values()))} are filled in {some_rows(rows)}"
    unread.add(rows, JobError("InvalidData", f"{where}: {said}: fill in another one, or remove {_them(rows)}"))


def _them(rows: Sequence[int]) -> str:
    return "it" if len(rows) == 1 else "them"


def _numbers(column: pa.ChunkedArray, modality: str) -> pa.Array:
    """Return the number of each cell, the same for equal ones, null where there is none."""
    import pyarrow as pa

    return pa.array(numbers_of(column), mask=_absent(column, modality))


def _absent(column: pa.ChunkedArray, modality: str) -> np.ndarray:
    rows = missing_files(column) if modality in COLUMNS else without_text(column)
    found = np.zeros(len(column), dtype=bool)
    found[rows] = True
    return found


def absent(source: DataSource, modality: str) -> np.ndarray:
    """Return which rows of a source lack a cell of a modality, bool of shape (rows,)."""
    return _absent(_column(source, modality), modality)


def _column(source: DataSource, modality: str) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    inputs = pc.struct_field(source.inputs, modality)
    return inputs if isinstance(inputs, pa.ChunkedArray) else pa.chunked_array([inputs])


def _emptied(column: pa.ChunkedArray, without: np.ndarray) -> pa.ChunkedArray:
    """Return a column of paths without what stands in the place of absent cells."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.if_else(pa.chunked_array([pa.array(without)]), pa.scalar(None, column.type), column)


def part_of(source: DataSource, modality: str) -> DataSource:
    """Return a source with the cells of one modality alone; in the place of an absent one stands the first that there is."""
    import pyarrow as pa

    inputs = _column(source, modality)
    without = _absent(inputs, modality)
    if without.any() and not without.all():
        inputs = inputs.take(pa.array(np.where(without, np.argmin(without), np.arange(len(without)))))
    files = modality in COLUMNS and not pa.types.is_struct(inputs.type)
    return replace(source, inputs=inputs, files=files and not pa.types.is_binary(inputs.type))


def shared(split: Split, other: Split, modalities: Collection[str] | None = None) -> np.ndarray:
    """Return which samples of a split have a cell that stands in another one, bool of shape (samples,).

    Of the modalities that both read, or of those alone that are named.
    """
    found = np.zeros(len(split), dtype=bool)
    both = {field.name for field in split.source.inputs.type} & {field.name for field in other.source.inputs.type}
    for name in sorted(both if modalities is None else both & {*modalities}):
        (mine, here), (theirs, there) = (_cells_of(one, name) for one in (split, other))
        found |= np.isin(mine, theirs[there]) & here
    return found


def overlaps(splits: Mapping[str, Split]) -> dict[str, int]:
    """Count the samples of held-out splits that have a cell of another one, like {"test in train": 12}."""
    found: dict[str, int] = {}
    for name, others in (("validation", ("train",)), ("test", ("train", "validation"))):
        for other in others:
            if name in splits and other in splits:
                count = int(np.sum(shared(splits[name], splits[other])))
                found |= {f"{name} in {other}": count} if count else {}
    return found


def learned_before(
    splits: Mapping[str, Split], name: str, learned: Split, modalities: Collection[str] | None = None
) -> dict[str, int]:
    """Count the samples of held-out splits that have a cell which a stage trains on, like {"test in stage domain": 12}.

    Parameters as of `shared`.
    """
    held_out = (split for split in ("validation", "test") if split in splits)
    counts = {split: int(shared(splits[split], learned, modalities).sum()) for split in held_out}
    return {f"{split} in stage {name}": count for split, count in counts.items() if count}


def _cells_of(split: Split, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a hash of each sample's cell, and whether it has one."""
    hashes = hashes_of(part_of(split.source, modality).inputs)
    return hashes[split.rows], ~absent(split.source, modality)[split.rows]
