"""Files that a model reads: folders with one sub-folder per label, and tables of paths or of the files' content."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np

from unfreeze_api.commands import explained
from unfreeze_api.contracts.resolved import Columns, Dataset
from unfreeze_trainer.data.label_names import with_names
from unfreeze_trainer.data.samples import DataSource, TargetKind, readable
from unfreeze_trainer.data.shards import folder_of, is_table_folder
from unfreeze_trainer.data.split_names import split_of
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.data.web_dataset import is_reference
from unfreeze_trainer.errors import JobError, quoted, some_of, some_rows
from unfreeze_trainer.sources.closed import Closed
from unfreeze_trainer.sources.pointers import stand_in, stand_in_at

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

CHECKED_FILES = 10_000
"""Files whose header is read before training."""
_PART = re.compile(r"(fold|split|part|batch|chunk|shard)[-_ ]?\d+", re.IGNORECASE)
"""Names of folders that hold a part of the data, and not the files of a label."""
_ROLE = re.compile(
    r"(images?|imgs?|pictures?|photos?|masks?|labels?|annotations?|ground[-_ ]?truth|gt|jpegimages|segmentation\w*"
    r"|wavs?|wav48\w*|txts?|transcripts?)",
    re.IGNORECASE,
)
"""Names of folders that hold pictures or clips, and what belongs to each."""
_SPEAKER = re.compile(r"(actor|speaker|spk|spkr|subject|person|p|s|id)[-_ ]?\d+", re.IGNORECASE)
"""Names of folders of one speaker's clips."""
_FOLDERS = {"hidden": "hidden folders", "linked": "links to folders within those of labels"}
"""What is left out beside files of other suffixes."""
_OF_FOLDERS = ("Labels", "LabelSets")
"""Targets that the folders of files say."""


_SHOWN = 200
"""Characters of a cell in a message."""
_LOOKED_FOLDERS = 64
"""Folders in which a file is looked for that is not where a table says."""
_LOOKED_ENTRIES = 1000
"""Of each folder, among which these are."""
_LOOKED = 100
"""Files of a table that are looked for where those that are gone are skipped, or up to twice as many."""


@dataclass(frozen=True)
class FileKind:
    """What lies in the files.

    Parameters
    ----------
    column
        Field of `columns` with the name of the column that they stand in.
    one, many, file, files
        Words for messages: what a file shows, and what it is.
    suffixes
        Of the files that are read, in small letters, with their dots.
    """

    column: str
    one: str
    many: str
    file: str
    files: str
    suffixes: Collection[str]

    def column_of(self, columns: Columns) -> str:
        """Return the name of the column."""
        name: str = getattr(columns, self.column)
        return name


def read_files(
    kind: FileKind,
    dataset: Dataset,
    where: str,
    *,
    skip: bool,
    head: bool,
    targets: TargetKind,
) -> DataSource:
    """Read a folder of files, or a table of paths relative to it or of the files' content; JobError for broken ones.

    Parameters
    ----------
    kind
        What they hold: none is opened.
    dataset, where
        What is read, and what messages start with.
    skip
        Leave out rows of a table without a file or a label.
    head
        Read the first rows of a table alone.
    targets
        Their kind.
    """
    import pyarrow as pa

    root = Path(dataset.path)
    try:
        of_labels = root.is_dir() and not is_table_folder(dataset.path)
        say_labels = of_labels and targets.__name__ in _OF_FOLDERS
        if say_labels:
            folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not is_hidden(entry.name))
            _refuse_parts(kind, folders, where)
        folder = _list_folder(kind, root, where, skip=skip) if of_labels else None
        if folder and say_labels:
            _refuse_one_around(kind, root, folder[1], where)
            _tell_alike(root, folders, where)
    except OSError as error:
        raise JobError("InvalidData", f"{where}: cannot be read: {explained(error)}") from error
    if folder:
        paths, labels = folder
        cells = (
            [[label] for label in labels] if targets.cells == "Lists" else labels
        )  # a comma in a name separates nothing
        of_folders = pa.chunked_array([pa.array(cells) if targets.cells else pa.array(cells).dictionary_encode()])
        source = DataSource(dataset, where, pa.chunked_array([pa.array(paths)]), of_folders, files=True)
    else:
        column, unread = kind.column_of(dataset.columns), Unread(where, skip=skip)
        [label] = targets.columns(dataset.columns)
        table = read_table(
            dataset.path, [column, label], where, unread, head=head, kinds={label: targets.cells or "One"}
        )
        table = with_names(table, dataset, [label]) if targets.cells != "Numbers" else table
        total = table.num_rows + len(unread)
        if not table.num_rows and not head:
            unread.check(total)
        if not total:
            raise JobError("InvalidData", f"{where}: no samples; the file has no rows")
        numbers = unread.others(total)
        inputs = cells_of(kind, table[column], column, where)
        missing = numbers[missing_files(inputs)].tolist()
        it = "it" if len(missing) == 1 else "them"
        message = f"{where}: no {kind.one} in column {column!r} of {some_rows(missing)}; remove {it}"
        unread.add(missing, JobError("InvalidData", message))
        source = DataSource(dataset, where, inputs, table[label], numbers=numbers)
        source = readable(source, unread, total, head=head, kind=targets)
        if not _is_binary(inputs.type) and not is_reference(inputs.type):
            source = located(kind, source, folder_of(dataset.path), skip=skip)
    return source


def cells_of(kind: FileKind, cells: pa.ChunkedArray, column: str, where: str) -> pa.ChunkedArray:
    """Return the paths or the contents in a table's column: text, bytes, or the hub's struct of bytes and path. JobError InvalidData of others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if not len(cells):  # no row could be read, and so its type is not known
        return cells.cast(pa.string())
    held = cells.type
    if is_reference(held):
        return cells
    if pa.types.is_struct(held) and {field.name for field in held} >= {"bytes"}:
        content = pc.struct_field(cells, "bytes")
        if content.null_count < len(cells) or "path" not in {field.name for field in held}:
            return content
        cells = pc.struct_field(cells, "path")
        held = cells.type
    if not (
        _is_binary(held) or pa.types.is_string(held) or pa.types.is_large_string(held) or pa.types.is_string_view(held)
    ):
        raise JobError(
            "InvalidData",
            f"{where}: column {column!r} holds {held}, and neither paths of {kind.many} nor their bytes: name another"
            f" column in columns.{kind.column}",
        )
    return cells


def located(kind: FileKind, source: DataSource, folder: Path, *, skip: bool) -> DataSource:
    """Return a source whose paths are relative to a folder with whole ones; `./a.png` and `a.png` are the same one.

    JobError InvalidData of files that are not there, unless skipped.
    """
    import pyarrow as pa

    closed, paths = Closed(folder, source.where, "InvalidData"), []
    for row, name in enumerate(source.inputs.to_pylist()):
        cell = f"row {source.number(row)}, column {kind.column_of(source.dataset.columns)!r}: "
        try:
            path = closed.place(name, prefix=cell) if skip else closed.path(name, prefix=cell)
            paths.append(str(Path(path)) if "/." in path or "//" in path else path)
        except (OSError, ValueError) as error:  # a name that no file system takes
            raise JobError("InvalidData", f"{source.where}: {cell}{_no_such(kind, folder, name)}") from error
    looked = paths[:: max(1, len(paths) // _LOOKED)] if skip else []
    if looked and all(map(_is_gone, looked)):
        name = source.inputs[0].as_py()
        message = (
            f"none of the {len(looked)} {kind.files} that were looked for is there, as: {_no_such(kind, folder, name)}"
        )
        raise JobError("InvalidData", f"{source.where}: {message}")
    return replace(source, inputs=pa.chunked_array([pa.array(paths, pa.string())]), files=True)


def _no_such(kind: FileKind, folder: Path, name: str) -> str:
    if "://" in name:
        return (
            f"{quoted(name[:_SHOWN])} is an address, and a table's {kind.files} are paths relative to it, or bytes: fetch"
            " them, and write where they lie"
        )
    if len(name) > _SHOWN:
        return (
            f"no such {kind.file}: the cell has {len(name):,} characters, {quoted(name[:_SHOWN])} ...; it takes a path"
            " relative to the table, or bytes (in a Parquet)"
        )
    message = (
        f"no such {kind.file}: {quoted(folder / name)}; paths are relative to the table"
        + " and have / between folders" * ("\\" in name)
    )
    found = meant(kind, folder, name)
    if not found:
        return message
    way = "write the paths so"
    if found.startswith("../"):
        way = f"a table's files lie below its folder, so write a table into {folder.parent}, with {quoted(found[3:])}"
    return f"{message}. {quoted(found)} is there: {way} (docs/conversions.md)"


def meant(kind: FileKind, folder: Path, name: str, *, beside: bool = True) -> str:
    """Return the path of a file that a name in a table's folder most likely means, empty if there is none.

    It lies in a sub-folder (clips/) or, unless not `beside`, in a folder beside the table's (../audio/), has a suffix that the name lacks or in other letters, is written
    otherwise (a blank, an accent, as in an address), or lay elsewhere on another machine, as the end of a whole path.
    """
    parts = Path(name).parts
    if not name or ".." in parts:
        return ""
    try:
        if Path(name).is_absolute():
            ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
            return next((end for end in ends if (folder / end).is_file()), "")
        ways = (
            f"{place}{form}"
            for above in ("", "../")[: 1 + beside]
            for place in (above, *islice(_folders(folder, above), _LOOKED_FOLDERS))
            for form in _forms(kind, name)
        )
        return next((way for way in ways if (folder / way).is_file()), "")
    except (OSError, ValueError):  # whoever opens it says so
        return ""


def _forms(kind: FileKind, name: str) -> list[str]:
    """Return a name, and how it may be written otherwise."""
    plain = unquote(name.strip()).replace("\\", "/")
    found = []
    for form in dict.fromkeys((name, plain, unicodedata.normalize("NFC", plain), unicodedata.normalize("NFD", plain))):
        stem, suffix = os.path.splitext(form)  # noqa: PTH122 - the rest stays as it is
        if suffix.lower() in kind.suffixes:
            found += [form, *(f"{stem}{other}" for other in (suffix.lower(), suffix.upper()))]
        else:
            found += [form, *(f"{form}{other}" for one in kind.suffixes for other in (one, one.upper()))]
    return found


def _folders(folder: Path, place: str) -> Iterator[str]:
    """Yield some folders in a place, as in `clips/`, and then some in these."""

    def within(one: str) -> list[str]:
        entries = islice(os.scandir(folder / one), _LOOKED_ENTRIES)
        return sorted(f"{one}{entry.name}/" for entry in entries if entry.is_dir())[:_LOOKED_FOLDERS]

    found = within(place)
    yield from found
    for one in found:
        yield from within(one)


def _is_gone(path: str) -> bool:
    try:
        os.stat(path)  # noqa: PTH116 - of many files
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):  # whoever opens it says so
        return False
    return False


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in checks)


def missing_files(cells: pa.ChunkedArray) -> np.ndarray:
    """Return the indices of paths or contents that are null or empty, int64 of shape (found,)."""
    import pyarrow.compute as pc

    if is_reference(cells.type):
        sizes = pc.fill_null(pc.struct_field(cells, "size"), 0)
        return np.flatnonzero(pc.equal(sizes, 0).to_numpy(zero_copy_only=False))
    return np.flatnonzero(pc.equal(pc.fill_null(pc.binary_length(cells), 0), 0).to_numpy(zero_copy_only=False))


def _list_folder(kind: FileKind, root: Path, where: str, *, skip: bool) -> tuple[list[str], list[str]]:
    paths, labels, left_out = [], [], Counter[str]()
    closed = Closed(root, where, "InvalidData")
    entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    folders = [entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name)]
    left_out["hidden"] = sum(entry.is_dir() and is_hidden(entry.name) for entry in entries)
    _refuse_splits(kind, root, folders, where)
    for label in folders:
        _require_text(str(root / label), root, where)
        closed.folder(label)
        found, before = [], left_out.copy()
        for file in _files_below(root / label, left_out):
            suffix = os.path.splitext(file.name)[1].lower()  # noqa: PTH122 - of millions of files
            if suffix not in kind.suffixes or file.name.startswith("."):
                left_out[suffix or "no suffix"] += 1
            else:
                _require_text(file.path, root, where)
                found.append(closed.entry(file, gone=skip))
        if not found:
            others = some_of(sorted((left_out - before).keys() - _FOLDERS.keys()))
            there = f", and what lies there in {others}: convert it, add" if others else ". Add"
            raise JobError(
                "InvalidData",
                f"{where}: no {kind.files} in the label's folder {label}; they end in {', '.join(sorted(kind.suffixes))}{there}"
                " some, or remove the folder",
            )
        paths += sorted(found)
        labels += [label] * len(found)
    if not paths:
        flat = side_by_side(kind, (entry.name for entry in entries if not entry.is_dir()))
        need = f"no {kind.files}: {root} needs one sub-folder per label, with the label's {kind.files} in it"
        raise JobError("InvalidData", f"{where}: {flat or need}")
    tell_left_out(where, left_out, sum(not entry.is_dir() for entry in entries))
    return paths, labels


def side_by_side(kind: FileKind, names: Iterable[str]) -> str:
    """Return what to do about files of a folder that lie in no folder of a label; empty where there are none."""
    count = sum(os.path.splitext(name)[1].lower() in kind.suffixes for name in names)  # noqa: PTH122 - of millions of files
    return (
        f"{count:,} {kind.files} lie side by side, and no folder says their labels: write a table with a row for each, its path and its label"
        " (docs/conversions.md), or move each into a folder of its label"
    ) * bool(count)


def is_hidden(folder: str) -> bool:
    """Return whether a folder is hidden, or is one that a Mac writes into archives, with hidden files alone."""
    return folder.startswith(".") or folder == "__MACOSX"


def _require_text(path: str, root: Path, where: str) -> None:
    """Raise JobError for a name that is no text: labels and paths are kept as UTF-8."""
    if not path.isascii():
        try:
            path.encode()
        except UnicodeEncodeError as error:
            name = os.fsencode(Path(path).relative_to(root)).decode(errors="backslashreplace")
            raise JobError("InvalidData", f"{where}: the name {name} is not UTF-8; rename it") from error


def _files_below(folder: Path | str, left_out: Counter[str]) -> Iterator[os.DirEntry[str]]:
    """Yield all that is no folder, from folders that are neither hidden nor links; count these."""
    for entry in os.scandir(folder):
        if not entry.is_dir():
            yield entry
        elif is_hidden(entry.name):
            left_out["hidden"] += 1
        elif entry.is_symlink():
            left_out["linked"] += 1
        else:
            yield from _files_below(entry.path, left_out)


def tell_left_out(where: str, left_out: Counter[str], beside: int = 0) -> None:
    """Log what of a folder is not read, by suffix, and how many files lie beside the folders of labels."""
    left = [
        f"{count} files of {suffix}" for suffix, count in sorted(left_out.items()) if count and suffix not in _FOLDERS
    ]
    left += [f"{left_out[kind]} {what}" for kind, what in _FOLDERS.items() if left_out[kind]]
    left += [f"{beside} files beside the labels' folders"] * bool(beside)
    if left:
        log.warning("%s: left out: %s", where, ", ".join(left))


def _refuse_splits(kind: FileKind, root: Path, folders: list[str], where: str) -> None:
    """Raise JobError where the folders, or two of them at least, are splits with folders of labels, and so no labels themselves."""
    told = {name: split for name in folders if (split := split_of(name))}
    if not told or (len(told) < len(folders) and len({*told.values()}) == 1):  # beside others a train is one
        return
    below = {name: list(os.scandir(root / name)) for name in told}
    files_lie_deeper = all(
        any(entry.is_dir() for entry in entries)
        and not any(os.path.splitext(entry.name)[1].lower() in kind.suffixes for entry in entries)  # noqa: PTH122
        for entries in below.values()
    )
    if not files_lie_deeper:
        return
    source = where.rpartition(" ")[2]
    ways = ", ".join(f"spec.data.{field}.source to {source}/{name}" for name, field in told.items())
    raise JobError(
        "InvalidData",
        f"{where}: {', '.join(told)} {'is a split and no label' if len(told) == 1 else 'are splits and no labels'}: set {ways}",
    )


def _refuse_parts(kind: FileKind, folders: list[str], where: str) -> None:
    """Raise JobError where the folders hold parts of the data, or pictures and what belongs to each, and so are no labels."""
    if len(folders) > 1 and all(map(_PART.fullmatch, folders)):
        raise JobError(
            "InvalidData",
            f"{where}: {some_of(folders)} are parts of the data and no labels: write a table with a row for each file, its path and its label"
            " (docs/conversions.md)",
        )
    if len(folders) > 1 and all(map(_ROLE.fullmatch, folders)):
        raise JobError(
            "InvalidData",
            f"{where}: {some_of(folders)} hold {kind.many} and what belongs to each, as masks, boxes and texts, and are no labels: write a table with"
            " a row for each file, its path, and its label or text (docs/conversions.md)",
        )
    if kind.column == "audio" and len(folders) > 1 and all(map(_SPEAKER.fullmatch, folders)):
        log.warning(
            "%s: the labels %s are called like speakers, so who speaks is learned: where the names of the files, or other files, say what"
            " is felt or said, write a table (docs/conversions.md)",
            where,
            some_of(folders),
        )


def _tell_alike(root: Path, folders: list[str], where: str) -> None:
    """Log that all folders hold the same folders, and nothing else: these may be the labels, in several forms of the same data."""
    shared: set[str] | None = None
    for name in folders:
        below = set()
        for entry in os.scandir(root / name):
            if not entry.is_dir():
                return
            below.add(entry.name)
        shared = below if shared is None else shared & below
    if len(folders) > 1 and shared and len(shared) > 1:
        log.warning(
            "%s: %s were taken for the labels, and each holds the folders %s: if those are the labels, name one of the former as the source",
            where,
            some_of(folders),
            some_of(sorted(shared)),
        )


def _refuse_one_around(kind: FileKind, root: Path, labels: list[str], where: str) -> None:
    """Raise JobError where all lies in one folder, and there in folders alone: these are the labels, as archives are unpacked."""
    if labels[0] != labels[-1]:
        return
    entries = [entry for entry in os.scandir(root / labels[0]) if not entry.name.startswith(".")]
    folders = sorted(entry.name for entry in entries if entry.is_dir())
    if len(folders) > 1 and not any(Path(entry.name).suffix.lower() in kind.suffixes for entry in entries):
        source = f"{where.rpartition(' ')[2]}/{labels[0]}"
        raise JobError(
            "InvalidData",
            f"{where}: {labels[0]} is its only folder, and so the only label; in it lie {some_of(folders)}: name {source} as the"
            " source, if these are the labels",
        )


def file_name(kind: FileKind, source: DataSource, row: int) -> str:
    """Return what a JobError's message calls a sample: its source, and its path, or its row where it stands in a table."""
    content, column = source.inputs[row].as_py(), kind.column_of(source.dataset.columns)
    if isinstance(content, bytes):
        return f"{source.where}: row {source.number(row)}, column {column!r}"
    if isinstance(content, dict):
        return f"{source.where}: {Path(content['shard']).name}: member {quoted(content['member'])}"
    if Path(source.dataset.path).is_dir() and not is_table_folder(source.dataset.path):
        return f"{source.where}: {content}"
    return f"{source.where}: row {source.number(row)}, column {column!r}: {quoted(content)}"


def check_headers(kind: FileKind, source: DataSource, checked: int, broken: Callable[[int], str]) -> None:
    """Read the headers of some files in threads.

    Parameters
    ----------
    kind, source
        Of the files.
    checked
        Of more, so many at even distances.
    broken
        Returns what is wrong with the file of a row, empty if nothing is.

    Raises
    ------
    JobError
        InvalidData: the first one that is broken, by its name.
    """
    inputs = source.inputs

    def tried(row: int) -> tuple[int, str]:
        return row, broken(row)

    chosen = np.unique(np.linspace(0, len(inputs) - 1, min(len(inputs), checked)).astype(int)).tolist()
    with ThreadPoolExecutor(threads()) as pool:
        for row, why in pool.map(tried, chosen, chunksize=64):
            if why:
                raise JobError("InvalidData", f"{file_name(kind, source, row)}: {_instead(source.content(row)) or why}")


def _instead(content: str | bytes) -> str:
    try:
        found = stand_in(content) if isinstance(content, bytes) else stand_in_at(Path(content))
    except OSError:  # it cannot be read, as is reported already
        return ""
    return f"it {found}" if found else ""


def threads() -> int:
    """Return how many threads read files."""
    return min(8, len(os.sched_getaffinity(0)))
