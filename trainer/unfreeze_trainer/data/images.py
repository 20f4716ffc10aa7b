"""Images: folders with one sub-folder per label, and tables of paths or of the files' content."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_api.commands import explained
from unfreeze_api.contracts.resolved import Dataset
from unfreeze_trainer.data.pictures import FORMATS, PictureError, open_picture, spare_channels
from unfreeze_trainer.data.samples import LABELS, Source, TargetKind, readable
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError, quoted, some_rows, unmarked
from unfreeze_trainer.sources.closed import Closed
from unfreeze_trainer.sources.pointers import stand_in, stand_in_at

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

CHECKED_IMAGES = 10_000
"""Images whose header is read before training."""
_SPLIT = re.compile(
    r"(train|training|val|valid|validation|dev|test|testing|eval|evaluation)([-_ ]?(set|data|images))?", re.IGNORECASE
)
"""Names of folders that hold a split, and not the pictures of a label."""


def read_images(
    dataset: Dataset,
    where: str,
    *,
    skip: bool = False,
    head: bool = False,
    checked: int = CHECKED_IMAGES,
    kind: TargetKind = LABELS,
) -> Source:
    """Read a folder of images, or a table of paths relative to it or of the files' content; JobError for broken ones.

    Parameters
    ----------
    dataset, where
        What is read, and what messages start with.
    skip
        Leave out rows of a table without a picture or a label. Pictures that cannot be read are left out when it is their
        turn, and not looked at here: what is trained on depends on no clock.
    head
        Read the first rows of a table alone.
    checked
        Images whose header is read; of more, so many at even distances.
    kind
        Of the targets.
    """
    import pyarrow as pa

    root = Path(dataset.path)
    try:
        folder = _list_folder(root, where, skip=skip) if root.is_dir() else None
    except OSError as error:
        raise JobError("InvalidData", f"{where}: cannot be read: {explained(error)}") from error
    if folder:
        paths, labels = folder
        targets = pa.chunked_array([pa.array(labels).dictionary_encode()])
        source = Source(dataset, where, pa.chunked_array([pa.array(paths)]), targets, files=True)
    else:
        column, unread = dataset.columns.image, Unread(where, skip=skip)
        table = read_table(
            dataset.path,
            [column, dataset.columns.label],
            where,
            unread,
            head=head,
            kinds={dataset.columns.label: kind.cells},
        )
        total = table.num_rows + len(unread)
        if not table.num_rows and not head:
            unread.check(total)
        if not total:
            raise JobError("InvalidData", f"{where}: no samples; the file has no rows")
        numbers = unread.others(total)
        inputs = _pictures_of(table[column], column, where)
        missing = numbers[_missing_pictures(inputs)].tolist()
        it = "it" if len(missing) == 1 else "them"
        message = f"{where}: no picture in column {column!r} of {some_rows(missing)}; remove {it}"
        unread.add(missing, JobError("InvalidData", message))
        source = Source(dataset, where, inputs, table[dataset.columns.label], numbers=numbers)
        source = readable(source, unread, total, head=head, kind=kind)
        if not _is_binary(inputs.type):
            source = _located(source, root.parent, skip=skip)
    if not skip:
        _check_headers(source, checked)
    return source


def _pictures_of(cells: pa.ChunkedArray, column: str, where: str) -> pa.ChunkedArray:
    """Return the paths or the contents in a table's column: text, bytes, or the hub's struct of bytes and path."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if not len(cells):  # no row could be read, and so its type is not known
        return cells.cast(pa.string())
    kind = cells.type
    if pa.types.is_struct(kind) and {field.name for field in kind} >= {"bytes"}:
        content = pc.struct_field(cells, "bytes")
        if content.null_count < len(cells) or "path" not in {field.name for field in kind}:
            return content
        cells = pc.struct_field(cells, "path")
        kind = cells.type
    if not (
        _is_binary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    ):
        raise JobError(
            "InvalidData",
            f"{where}: column {column!r} holds {kind}, and neither paths of pictures nor their bytes: name another column"
            " in columns.image",
        )
    return cells


def _located(source: Source, folder: Path, *, skip: bool) -> Source:
    """Return a source whose paths are relative to a folder with whole ones, of files that are there unless skipped."""
    import pyarrow as pa

    closed, paths = Closed(folder, source.where, "InvalidData"), []
    for row, name in enumerate(source.inputs.to_pylist()):
        told = f"row {source.number(row)}, column {source.dataset.columns.image!r}: "
        try:
            paths.append(closed.place(name, told=told) if skip else closed.path(name, told=told))
        except (OSError, ValueError) as error:  # a name that no file system takes
            message = f"{source.where}: {told}no such image: {quoted(folder / name)}; paths are relative to the table"
            raise JobError("InvalidData", message) from error
    return replace(source, inputs=pa.chunked_array([pa.array(paths, pa.string())]), files=True)


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in checks)


def _missing_pictures(cells: pa.ChunkedArray) -> np.ndarray:
    """Return the indices of paths or contents that are null or empty."""
    import pyarrow.compute as pc

    return np.flatnonzero(pc.equal(pc.fill_null(pc.binary_length(cells), 0), 0).to_numpy(zero_copy_only=False))


def _list_folder(root: Path, where: str, *, skip: bool) -> tuple[list[str], list[str]]:
    paths, labels, left_out = [], [], Counter[str]()
    closed = Closed(root, where, "InvalidData")
    entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    folders = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    left_out["hidden"] = sum(entry.is_dir() and entry.name.startswith(".") for entry in entries)
    _refuse_splits(root, folders, where)
    for label in folders:
        closed.folder(label)
        found = []
        for file in _files_below(root / label, left_out):
            suffix = os.path.splitext(file.name)[1].lower()  # noqa: PTH122 - of millions of files
            if suffix not in FORMATS or file.name.startswith("."):
                left_out[suffix or "no suffix"] += 1
            else:
                found.append(closed.entry(file, gone=skip))
        if not found:
            raise JobError(
                "InvalidData",
                f"{where}: no images in the label's folder {label}; they end in {', '.join(sorted(FORMATS))}. Add some,"
                " or remove the folder",
            )
        paths += sorted(found)
        labels += [label] * len(found)
    if not paths:
        raise JobError(
            "InvalidData", f"{where}: no images: {root} needs one sub-folder per label, with the label's images in it"
        )
    _tell_left_out(where, left_out, sum(not entry.is_dir() for entry in entries))
    return paths, labels


def _files_below(folder: Path | str, left_out: Counter[str]) -> Iterator[os.DirEntry[str]]:
    """Yield all that is no folder, from folders that are neither hidden nor links; count the hidden ones."""
    for entry in os.scandir(folder):
        if not entry.is_dir():
            yield entry
        elif entry.name.startswith("."):
            left_out["hidden"] += 1
        elif not entry.is_symlink():
            yield from _files_below(entry.path, left_out)


def _tell_left_out(where: str, left_out: Counter[str], beside: int) -> None:
    told = [f"{count} files of {suffix}" for suffix, count in sorted(left_out.items()) if count and suffix != "hidden"]
    told += [f"{left_out['hidden']} hidden folders"] * bool(left_out["hidden"])
    told += [f"{beside} files beside the labels' folders"] * bool(beside)
    if told:
        log.warning("%s: left out: %s", where, ", ".join(told))


def _refuse_splits(root: Path, folders: list[str], where: str) -> None:
    """Raise JobError where the folders are splits, each with folders of labels, and so no labels themselves."""
    if not folders or not all(_SPLIT.fullmatch(name) for name in folders):
        return
    below = {name: list(os.scandir(root / name)) for name in folders}
    pictures_lie_deeper = all(
        any(entry.is_dir() for entry in entries)
        and not any(os.path.splitext(entry.name)[1].lower() in FORMATS for entry in entries)  # noqa: PTH122
        for entries in below.values()
    )
    if not pictures_lie_deeper:
        return
    fields = {"tr": "train", "va": "validation", "de": "validation", "te": "test", "ev": "test"}
    source = where.rpartition(" ")[2]
    ways = ", ".join(f"spec.data.{fields[name[:2].lower()]}.source to {source}/{name}" for name in folders)
    raise JobError("InvalidData", f"{where}: {', '.join(folders)} are splits and no labels: set {ways}")


def sample_name(source: Source, row: int) -> str:
    """Return what a JobError's message calls a picture: its source, and its path, or its row where it stands in a table."""
    content, column = source.inputs[row].as_py(), source.dataset.columns.image
    if isinstance(content, bytes):
        return f"{source.where}: row {source.number(row)}, column {column!r}"
    if Path(source.dataset.path).is_dir():
        return f"{source.where}: {content}"
    return f"{source.where}: row {source.number(row)}, column {column!r}: {quoted(content)}"


def _check_headers(source: Source, checked: int) -> None:
    inputs, spare = source.inputs, list[str]()

    def broken(row: int) -> str:
        try:
            with open_picture(inputs[row].as_py()) as image:
                if count := spare_channels(image):
                    spare.append(f"{count} in {sample_name(source, row).removeprefix(f'{source.where}: ')}")
        except PictureError as error:
            return f"{sample_name(source, row)}: {_instead(inputs[row].as_py()) or error}"
        return ""

    chosen = np.unique(np.linspace(0, len(inputs) - 1, min(len(inputs), checked)).astype(int)).tolist()
    with ThreadPoolExecutor(threads()) as pool:
        for message in pool.map(broken, chosen, chunksize=64):
            if message:
                raise JobError("InvalidData", message)
    if spare:
        log.warning(
            "%s: %d pictures have channels that are neither colour nor alpha (%s), which are left out",
            source.where,
            len(spare),
            unmarked(min(spare)),
        )


def _instead(content: str | bytes) -> str:
    try:
        found = stand_in(content) if isinstance(content, bytes) else stand_in_at(Path(content))
    except OSError:  # it cannot be read, as is told already
        return ""
    return f"it {found}" if found else ""


def threads() -> int:
    """Return how many threads read images."""
    return min(8, len(os.sched_getaffinity(0)))
