"""What lies at a path that a person names: tables or files by label, and which of them are splits of one set of data."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unfreeze_trainer.data.audio import CLIPS
from unfreeze_trainer.data.clips import SUFFIXES as CLIP_SUFFIXES
from unfreeze_trainer.data.files import is_hidden, side_by_side
from unfreeze_trainer.data.images import PICTURES
from unfreeze_trainer.data.partitions import is_partitioned
from unfreeze_trainer.data.pictures import FORMATS as PICTURE_SUFFIXES
from unfreeze_trainer.data.shards import is_pattern, shards
from unfreeze_trainer.data.split_names import SPLIT_WORDS, Split, split_of, without_split
from unfreeze_trainer.data.suffixes import TABLES, is_table, lies_as_table, no_table, stem, suffixes
from unfreeze_trainer.errors import JobError, some_of

Kind = Literal["Table", "Image", "Audio"]
_LISTS = (
    "files that list a split's are not read, and all of the folders is: docs/conversions.md has lines that divide it so"
)
_MOST_SUFFIXES = 3
_LOOKED = 1000
"""Files of a folder whose suffix tells what all are."""


@dataclass(frozen=True)
class Layout:
    """Where the splits of some data lie."""

    kind: Kind
    """Tables, or folders with one sub-folder of files for each label."""
    train: Path
    validation: Path | None = None
    test: Path | None = None
    said: list[str] = field(default_factory=list)
    """What was decided, and how to have it otherwise, for people."""

    @property
    def splits(self) -> dict[str, Path]:
        """Those that have a source of their own."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: path for name, path in found.items() if path}


def find_layout(path: Path) -> Layout:
    """Return what lies at a path, which may be a pattern of tables.

    Raises
    ------
    JobError
        InvalidData: nothing that a job reads, or several things of which one has to be named.
    """
    if is_pattern(str(path)) or is_partitioned(str(path)):
        shards(str(path), str(path))
        return Layout("Table", path)
    if not path.exists():
        raise JobError("InvalidData", f"{path}: no such file or folder")
    if path.is_file():
        return _of_file(path)
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not is_hidden(entry.name))
    files = (entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
    tables = sorted(entry for entry in files if lies_as_table(entry))
    if tables:
        return _of_tables(path, tables)
    if (parts := _splits(folders)) and "train" in parts:
        return _of_split_folders(path, parts)
    if folders and (kind := _kind(folders)):
        _require_no_table(path, folders)
        _require_labels(path, folders, kind)
        lists = [file.name for file in sorted(path.glob("*.txt")) if split_of(file.stem)]
        return Layout(kind, path, said=[f"{some_of(lists)} beside the folders: {_LISTS}"] if lists else [])
    if of_hub := [folder for folder in folders if folder.name == "data"]:  # as the hub's repositories of data are
        return find_layout(of_hub[0])
    for media in (PICTURES, CLIPS):
        if flat := side_by_side(media, (entry.name for entry in path.iterdir() if entry.is_file())):
            raise JobError("InvalidData", f"{path}: {flat}")
    raise _nothing(path)


def _nothing(path: Path) -> JobError:
    """Return the error about a folder in which nothing is read."""
    if told := [entry.name for entry in sorted(path.iterdir()) if entry.is_file() and is_table(entry)]:
        return JobError(
            "InvalidData",
            f"{path}: {some_of(told)}: JSON that is called neither like a split nor like a part may tell of other files: name the one that holds the rows",
        )
    return JobError(
        "InvalidData",
        f"{path}: nothing here that a job reads{_there(path)}: a job takes a table ({', '.join(TABLES)}), or a folder with one"
        " sub-folder of pictures or audio files for each label. docs/conversions.md has lines for texts, and for pictures and clips that lie"
        " otherwise",
    )


def _there(path: Path) -> str:
    """Return which files lie in a folder, for a message; empty where there are none."""
    found = Counter(_suffixes(path))
    names = [suffix or "no suffix" for suffix, _ in found.most_common(_MOST_SUFFIXES)]
    return f", but files of {', '.join(names)}" if names else ""


def _require_no_table(path: Path, folders: Sequence[Path]) -> None:
    """Raise JobError InvalidData where a table lies in one of the folders, without pictures or clips: no label is called so."""
    for folder in folders:
        if not _kind([folder]) and (found := next((file for file in sorted(folder.iterdir()) if is_table(file)), None)):
            raise JobError(
                "InvalidData",
                f"{path}: its folder {folder.name!r} holds a table, and is no label: name {found.relative_to(path)}, or the folder that has"
                " the labels' folders in it",
            )


def _require_labels(path: Path, folders: Sequence[Path], kind: Kind) -> None:
    """Raise JobError InvalidData where all files lie side by side in one folder, which is no label of all of them."""
    if len(folders) > 1:
        return
    below, media = list(folders[0].iterdir()), CLIPS if kind == "Audio" else PICTURES
    flat = side_by_side(media, (entry.name for entry in below if entry.is_file()))
    if flat and not any(entry.is_dir() for entry in below):
        beside = [entry.name for entry in sorted(path.iterdir()) if entry.is_file() and not entry.name.startswith(".")]
        table = f". Beside it lies {some_of(beside)}" if beside else ""
        raise JobError("InvalidData", f"{path}: in its only folder {folders[0].name!r} {flat}{table}")


def _of_file(path: Path) -> Layout:
    """Return a table, with those beside it that are called alike but for the split."""
    if not is_table(path):
        raise JobError("InvalidData", f"{path}: {no_table(path)}")
    if split_of(stem(path)) != "train":
        return Layout("Table", path)
    found: dict[Split, Path] = {}
    for other in sorted(path.parent.iterdir()):
        split = split_of(stem(other))
        is_other = other.is_file() and suffixes(other) == suffixes(path) and split != "train"
        if split and is_other and _fits(stem(path), stem(other)):
            found.setdefault(split, other)
    return _with_others(path, found)


def _with_others(train: Path, others: Mapping[Split, Path]) -> Layout:
    said = [f"{other} beside it was taken as {split} data, by its name" for split, other in others.items()]
    return Layout("Table", train, others.get("validation"), others.get("test"), said)


def _fits(train: str, other: str) -> bool:
    """Return whether two names differ in the split alone; that of the training may have an end of its own, `train-1000`."""
    before, after = without_split(other)
    own_before, own_after = without_split(train)
    return before == own_before and after in (own_after, "")


def _of_tables(folder: Path, tables: Sequence[Path]) -> Layout:
    if len(tables) == 1:
        return Layout("Table", tables[0])
    by_split: dict[Split | None, list[Path]] = {}
    for table in tables:
        by_split.setdefault(split_of(stem(table)), []).append(table)
    train = by_split.get("train", [])
    if len(train) == 1 and all(len(files) == 1 for files in by_split.values()):
        return _of_file(train[0])
    found = {split: _pattern(folder, files) for split, files in by_split.items() if split or not train}
    if len(found) == 1 and None in found and (whole := found[None]):  # parts whose names tell no split
        return Layout("Table", whole)
    parts = {split: path for split, path in found.items() if split and path}
    if len(parts) == len(found) and "train" in parts:
        return _with_others(parts.pop("train"), parts)
    if len(train) == 1:
        return _of_file(train[0])
    raise JobError(
        "InvalidData",
        f"{folder}: {len(tables)} tables lie here, {some_of([table.name for table in tables])}: name the one to train on, or"
        " a pattern (train-*.parquet) for several",
    )


_NUMBER = re.compile(r"\d+")


def _pattern(folder: Path, files: Sequence[Path]) -> Path | None:
    """Return the pattern of files that are called alike but for their numbers, and of no others; of a single one itself."""
    if len(files) == 1:
        return files[0]
    names = [file.name for file in files]
    alike = {_NUMBER.sub("0", name) for name in names}
    if len(alike) > 1 or any(sign in name for name in names for sign in "*?["):
        return None
    before, *_, after = _NUMBER.split(names[0])
    pattern = folder / f"{before}*{after}"
    return pattern if [Path(file) for file in shards(str(pattern), str(pattern))] == sorted(files) else None


def _splits(folders: Sequence[Path]) -> dict[Split, Path]:
    """Return the folders by split, none where one is no split."""
    found = {SPLIT_WORDS.get(folder.name.lower()): folder for folder in folders}
    if None in found or len(found) < len(folders):
        return {}
    return {split: folder for split, folder in found.items() if split}


def _of_split_folders(path: Path, parts: dict[Split, Path]) -> Layout:
    below = {split: sorted(entry for entry in folder.iterdir() if entry.is_dir()) for split, folder in parts.items()}
    if kind := _kind(below["train"]):
        said = [
            f"{folder} was taken as {split} data, by its name"
            if below[split]
            else f"{folder} has no folders of labels, and is not taken as {split} data"
            for split, folder in parts.items()
            if split != "train"
        ]
        parts = {split: folder for split, folder in parts.items() if below[split]}
        return Layout(kind, parts["train"], parts.get("validation"), parts.get("test"), said)
    tables = {split: find_layout(folder) for split, folder in parts.items()}
    if all(layout.kind == "Table" for layout in tables.values()):
        files = {split: layout.train for split, layout in tables.items()}
        return Layout("Table", files["train"], files.get("validation"), files.get("test"))
    raise JobError("InvalidData", f"{path}: its folders are splits, and hold neither a table nor folders of labels")


def _kind(folders: Sequence[Path]) -> Kind | None:
    """Return what lies in folders of labels, by the suffixes of the first files of each."""
    counts: dict[Kind, int] = {"Image": 0, "Audio": 0}
    for folder in folders:
        for suffix in _suffixes(folder):
            counts["Image"] += suffix in PICTURE_SUFFIXES
            counts["Audio"] += suffix in CLIP_SUFFIXES
    best: Kind = "Image" if counts["Image"] >= counts["Audio"] else "Audio"
    return best if counts[best] else None


def _suffixes(folder: Path) -> Iterator[str]:
    seen = 0
    for _, _, names in os.walk(folder):
        for name in names:
            yield os.path.splitext(name)[1].lower()  # noqa: PTH122 - of millions of files
            seen += 1
            if seen >= _LOOKED:
                return
