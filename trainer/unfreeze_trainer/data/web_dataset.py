"""WebDataset shards: tar files whose members with one name, up to its first dot, are a sample, and whose ends are its columns.

A shard is indexed once, by its headers; pictures and clips stay where they lie, and nothing is unpacked onto a disk.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from unfreeze_trainer.data.clips import SUFFIXES as CLIPS
from unfreeze_trainer.data.columns import check_columns
from unfreeze_trainer.data.json_lines import CHUNK_CHARACTERS, CHUNK_ROWS, HEAD_ROWS, MAY_LACK, NONE, Cells, json_cell
from unfreeze_trainer.data.pictures import FORMATS as PICTURES
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError, quoted, some_of

if TYPE_CHECKING:
    import pyarrow as pa

MAX_CELL = 16 << 20
"""Bytes of a text, a label or an object."""
MAX_MEDIA = 512 << 20
"""Bytes of a picture or a clip, which is read whole."""
_MAX_HEADER = 1 << 20
"""Bytes of what stands before a member about it: a long name, or fields of pax."""
_ABOUT_OTHERS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
_MEDIA = frozenset(suffix.removeprefix(".") for suffix in (*PICTURES, *CLIPS))
_COLUMNS: Mapping[str, Sequence[str]] = {
    "image": sorted(suffix.removeprefix(".") for suffix in PICTURES),
    "audio": sorted(suffix.removeprefix(".") for suffix in CLIPS),
    "text": ("txt",),
    "label": ("cls",),
}
"""Ends of the members that serve as columns with these names, where none ends in the name itself."""
_NUMBER = re.compile(r"-?\d{1,18}")
"""Of a `.cls`."""
_BLOCK = 512


class _LacksError(JobError):
    """A sample has no member, and no field, for a column."""


@dataclass(frozen=True)
class _Member:
    name: str
    start: int
    size: int


@dataclass
class _Sample:
    key: str
    members: dict[str, _Member] = field(default_factory=dict)
    """By what stands behind the first dot, in small letters."""


def read_web_dataset(
    path: str, columns: list[str], where: str, unread: Unread, *, head: bool, kinds: Mapping[str, Cells | None] = NONE
) -> Iterator[pa.Table]:
    """Read some columns of a shard: ends of members (`jpg`, `cls`), names that these serve for (image), or fields of `.json`.

    Pictures and clips are structs of shard, member, start and size; texts are text, `.cls` and fields are what stands there. Of an
    optional column a sample may lack it.
    """
    wanted = list(dict.fromkeys(columns))
    cells: dict[str, list[Any]] = {name: [] for name in wanted}
    types: dict[str, type] = {}
    nowhere = {name for name in wanted if kinds.get(name) == "Optional"}
    first: _Sample | None = None
    number = held = 0
    with Path(path).open("rb") as file:
        row_of = partial(_row, wanted=wanted, file=file, types=types, where=where, kinds=kinds)
        for number, sample in enumerate(_samples(path, where), start=1):
            first = first or sample
            try:
                values = row_of(sample, nowhere=nowhere)
            except JobError as error:
                if number == 1 and isinstance(error, _LacksError):
                    _check_first(sample, wanted, file, where)
                unread.add([number - 1], error)
            else:
                for name, value in zip(wanted, values, strict=True):
                    cells[name].append({"shard": path, **value} if isinstance(value, dict) else value)
                held += sum(len(value) for value in values if isinstance(value, str | list))
            full = number % (HEAD_ROWS if head else CHUNK_ROWS) == 0
            if full or held >= CHUNK_CHARACTERS:
                yield _table(cells)
                cells, held = {name: [] for name in wanted}, 0
            if full and head:
                break
        else:
            if first and nowhere:
                check_columns(sorted(nowhere), _names(first, file, where), where)
    yield _table(cells)
    if not number:
        raise JobError("InvalidData", f"{where}: the archive has no members, and so no samples")


def _check_first(sample: _Sample, wanted: Sequence[str], file: Any, where: str) -> None:
    """Raise JobError where a shard's first sample lacks a column: the others will, too."""
    lacking = [column for column in wanted if not _end_of(sample, column, where)]
    if len(sample.members) == 1 and all(map(holds_media, sample.members)):
        raise JobError(
            "InvalidData",
            f"{where}: sample {quoted(sample.key)} is a file alone, with nothing for the column {lacking[0]!r}: in a WebDataset 7.jpg"
            " and 7.cls stand side by side. Unpack an archive of folders or of files beside a table, and name what was in it",
        )
    check_columns(lacking, _names(sample, file, where), where)


def _table(cells: Mapping[str, list[Any]]) -> pa.Table:
    import pyarrow as pa

    return pa.table(dict(cells))


def column_names(path: str, where: str) -> list[str]:
    """Return the columns of a shard, by its first sample; JobError as of `read_web_dataset`."""
    with Path(path).open("rb") as file:
        return next((_names(sample, file, where) for sample in _samples(path, where)), [])


def serves(column: str, names: Sequence[str]) -> bool:
    """Return whether image or audio stands for one of a shard's columns alone, and so for other ends of it in other samples, too."""
    return column not in names and sum(name in _COLUMNS[column] for name in names) == 1


def holds_media(column: str) -> bool:
    """Return whether a column holds pictures or clips."""
    return column.rpartition(".")[2] in _MEDIA


def is_reference(kind: pa.DataType) -> bool:
    """Return whether cells of a type say where in a shard something lies."""
    import pyarrow as pa

    return bool(pa.types.is_struct(kind)) and {one.name for one in kind} == {"shard", "member", "start", "size"}


def read_reference(cell: Mapping[str, Any]) -> bytes:
    """Return what a cell says where it lies."""
    file = os.open(cell["shard"], os.O_RDONLY)
    try:
        return os.pread(file, cell["size"], cell["start"])
    finally:
        os.close(file)


def _samples(path: str, where: str) -> Iterator[_Sample]:
    """Yield the samples of a shard in their order; the members of each stand together."""
    seen: set[str] = set()
    sample: _Sample | None = None
    for member in _members(path, where):
        folder, base = os.path.split(member.name)
        stem, _, end = base.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        if sample is None or sample.key != key:
            if sample:
                yield sample
            if key in seen:
                raise JobError(
                    "InvalidData",
                    f"{where}: member {quoted(member.name)}: other samples lie between the members of {quoted(key)}, or it"
                    " stands there twice: write the members of each sample together, and give each its own name",
                )
            seen.add(key)
            sample = _Sample(key)
        if end.lower() in sample.members:
            raise JobError("InvalidData", f"{where}: member {quoted(member.name)} stands there twice; remove one")
        sample.members[end.lower()] = member
    if sample:
        yield sample


def _members(path: str, where: str) -> Iterator[_Member]:
    """Yield the regular files of an archive; one that is cut off, or has others, is refused."""
    size = Path(path).stat().st_size
    end = 0
    try:
        with tarfile.open(path, "r:", tarinfo=_TarInfo) as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined] # it keeps all
                if member.size < 0:
                    raise tarfile.ReadError(f"a member has {member.size} bytes")
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                if member.isdir():
                    continue
                _require_plain(member, where)
                if member.offset_data + member.size > size:
                    raise JobError(
                        "InvalidData", f"{where}: the archive is cut off within {quoted(member.name)}: copy it again"
                    )
                if not any(part.startswith(".") for part in PurePosixPath(member.name).parts):
                    yield _Member(member.name, member.offset_data, member.size)
    except (tarfile.TarError, ValueError, RecursionError) as error:
        what = "cut off or broken" if end else "no tar file, or it is compressed: unpack a .tar.gz"
        raise JobError("InvalidData", f"{where}: the archive is {what} ({error}): copy it again") from error
    with Path(path).open("rb") as file:
        file.seek(end)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise JobError(
                "InvalidData", f"{where}: the archive is cut off: the mark of its end is missing. Copy it again"
            )


class _TarInfo(tarfile.TarInfo):
    """A member whose header is read into memory only where it is no larger than any that somebody needs."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _ABOUT_OTHERS and self.size > _MAX_HEADER:
            raise tarfile.ReadError(f"the header of a member has {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc] # made to be overridden


def _require_plain(member: tarfile.TarInfo, where: str) -> None:
    name = quoted(member.name)
    parts = PurePosixPath(member.name).parts
    if member.name.startswith("/") or ".." in parts or "\\" in member.name or "\0" in member.name:
        raise JobError("InvalidData", f"{where}: member {name} leads out of the archive's folder: remove or rename it")
    if not member.isreg() or member.issparse():
        what = "a link" if member.issym() or member.islnk() else "no regular file"
        raise JobError("InvalidData", f"{where}: member {name} is {what}: replace it by the file itself")


def _row(
    sample: _Sample,
    *,
    wanted: Sequence[str],
    file: Any,
    types: dict[str, type],
    where: str,
    kinds: Mapping[str, Cells | None],
    nowhere: set[str],
) -> list[Any]:
    """Return a sample's values, or where its pictures or clips lie.

    `types` are those of the samples before, `nowhere` the optional columns that none of these has.
    """
    place, values = f"{where}: sample {quoted(sample.key)}", list[Any]()
    for column in wanted:
        end = _end_of(sample, column, where)
        if not end:
            record = _object(sample, file, where) if "json" in sample.members else {}
            if column not in record and kinds.get(column) in MAY_LACK:
                values.append(None)
                continue
            if column not in record:
                there = some_of(sorted(sample.members))
                raise _LacksError(
                    "InvalidData", f"{place} has nothing for the column {column!r}: its members end in {there}"
                )
            nowhere.discard(column)
            values.append(json_cell(record, column, types, place, kinds.get(column)))
            continue
        nowhere.discard(column)
        if holds_media(end):
            member = sample.members[end]
            if member.size > MAX_MEDIA:
                raise JobError(
                    "InvalidData", f"{where}: member {quoted(member.name)} has {member.size:,} bytes; make it smaller"
                )
            values.append({"member": member.name, "start": member.start, "size": member.size})
        else:
            value: Any = _text(sample.members[end], file, where)
            if end == "cls":
                value = value.strip()
                value = int(value) if _NUMBER.fullmatch(value) and types.get(column, int) is int else value
                value = json_cell({column: value}, column, types, place, kinds.get(column))
            values.append(value)
    return values


def _end_of(sample: _Sample, column: str, where: str) -> str:
    """Return the end of the member that is a column; empty where none is."""
    if column in sample.members:
        return column
    found = [end for end in _COLUMNS.get(column, ()) if end in sample.members]
    if len(found) > 1:
        raise JobError(
            "InvalidData",
            f"{where}: sample {quoted(sample.key)} has several members for the column {column!r}: name one of"
            f" {', '.join(found)} in spec.data.<part>.columns",
        )
    return found[0] if found else ""


def _text(member: _Member, file: Any, where: str) -> str:
    if member.size > MAX_CELL:
        raise JobError(
            "InvalidData", f"{where}: member {quoted(member.name)} has {member.size:,} bytes, too many for a text"
        )
    try:
        return os.pread(file.fileno(), member.size, member.start).decode()
    except UnicodeDecodeError as error:
        raise JobError("InvalidData", f"{where}: member {quoted(member.name)} is not UTF-8; convert it") from error


def _object(sample: _Sample, file: Any, where: str) -> dict[str, Any]:
    member = sample.members["json"]
    try:
        found = json.loads(_text(member, file, where))
    except (ValueError, RecursionError) as error:
        raise JobError("InvalidData", f"{where}: member {quoted(member.name)} is not JSON: {quoted(error)}") from error
    if not isinstance(found, dict):
        raise JobError("InvalidData", f"{where}: member {quoted(member.name)} is no JSON object")
    return found


def _names(sample: _Sample, file: Any, where: str) -> list[str]:
    fields = list(_object(sample, file, where)) if "json" in sample.members else []
    return list(dict.fromkeys([*(end for end in sample.members if end != "json"), *fields]))
