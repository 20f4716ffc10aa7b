"""How the files of tables are called."""

from __future__ import annotations

from pathlib import Path

BY_COLUMNS = (".parquet", ".arrow", ".feather")
"""Suffixes of formats that are compressed within."""
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", *BY_COLUMNS, ".tar")
"""Suffixes of tables."""
PACKED = (".gz", ".bz2", ".xz", ".zst")
"""Suffixes of compressed files."""


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
