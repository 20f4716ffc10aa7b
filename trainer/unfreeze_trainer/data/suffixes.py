"""How the files of tables are called."""

from __future__ import annotations

import re
from pathlib import Path

from unfreeze_trainer.data.split_names import split_of

BY_COLUMNS = (".parquet", ".arrow", ".feather")
"""Suffixes of formats that are compressed within."""
JSON = (".jsonl", ".ndjson", ".json")
"""Suffixes of lines of JSON, of the last one also of a list."""
TABLES = (".csv", ".tsv", *JSON, *BY_COLUMNS, ".tar")
"""Suffixes of tables."""
PACKED = (".gz", ".bz2", ".xz", ".zst")
"""Suffixes of compressed files."""
_ARCHIVES = (".7z", ".rar", ".tgz", ".zip")
"""Suffixes of what holds other files, and is read by no reader."""
_SHEETS = (".xls", ".xlsx", ".xlsm", ".ods")
"""Suffixes of spreadsheets."""
_LOOKED = 1 << 16
"""Bytes of a file whose suffix tells nothing, by which it is told what it looks like."""
_NAME_WORDS = 3
"""Words of a column's name, at most."""

_PART = re.compile(r"part[-.]\d")


def suffixes(path: str | Path) -> tuple[str, str]:
    """Return the suffix of what a file holds, and that of its compression, in small letters: (".csv", ".gz")."""
    name = Path(path)
    last = name.suffix.lower()
    return (Path(name.stem).suffix.lower(), last) if last in PACKED else (last, "")


def stem(path: str | Path) -> str:
    """Return a file's name without these suffixes."""
    name = Path(path)
    return Path(name.stem).stem if name.suffix.lower() in PACKED else name.stem


def is_table(path: str | Path) -> bool:
    """Return whether a file is called like a table."""
    return suffixes(path)[0] in TABLES


def no_table(path: str | Path) -> str:
    """Return what a message says of a file that is not called like a table, behind its name."""
    suffix = suffixes(path)[0]
    way = "convert it (docs/conversions.md), or rename it if it is one of these"
    if suffix in _ARCHIVES:
        way = "unpack it"
    elif suffix in _SHEETS:
        way = "save its sheet as CSV (UTF-8, with commas)"
    elif like := _like(path):
        way = f"it looks like {like}: rename it so, and write names of the columns into its first line where it has none, or convert it (docs/conversions.md)"
    return f"files end in {', '.join(TABLES)}, not {suffix or 'nothing'}; {way}"


def _like(path: str | Path) -> str:
    """Return the suffix that the first lines of a file tell; empty where they tell none, or the file cannot be read."""
    try:
        with Path(path).open("rb") as file:
            begin = file.read(_LOOKED).decode(errors="replace").removeprefix("\ufeff")
    except OSError:
        return ""
    if begin.lstrip().startswith(("{", "[{")):
        return ".jsonl" if begin.lstrip().startswith("{") else ".json"
    lines = [line for line in begin.split("\n")[: -1 if len(begin) == _LOOKED else None] if line]
    tabs = {line.count("\t") for line in lines}
    if len(tabs) == 1 and tabs != {0}:
        return ".tsv"
    header = lines[0].split(",") if lines else []
    commas = len(header) > 1 and all(0 < len(name.split()) <= _NAME_WORDS for name in header)
    return ".csv" if commas and all(line.count(",") >= len(header) - 1 for line in lines) else ""


def lies_as_table(path: str | Path) -> bool:
    """Return whether a file among others is called like a table; one in .json only where it is called like a split or a part.

    Beside tables lie files in .json that tell of them (dataset_info.json, state.json). Spark calls its own part-00000-ID.json.
    """
    name = stem(path)
    return is_table(path) and (suffixes(path)[0] != ".json" or split_of(name) is not None or bool(_PART.match(name)))
