"""Tables: CSV, the same with tabs, JSON, Parquet and Arrow, by suffix, with errors that name file, row and column.

Only the columns that are asked for are kept, as Arrow arrays, and large ones in a file: see kept.py.
Rows are counted from 1; a CSV's header is not counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unfreeze_api.commands import explained
from unfreeze_trainer.data.columnar import read_arrow, read_parquet
from unfreeze_trainer.data.delimited import SEPARATED, read_delimited, require_closed_quotes
from unfreeze_trainer.data.encodings import not_utf8, require_no_utf16
from unfreeze_trainer.data.forms import in_form, widened
from unfreeze_trainer.data.json_lines import NONE, Cells, read_json_lines
from unfreeze_trainer.data.kept import Kept
from unfreeze_trainer.data.packed import packed_as
from unfreeze_trainer.data.partitions import name_below, values_of, with_values
from unfreeze_trainer.data.shards import is_several, shards
from unfreeze_trainer.data.suffixes import BY_COLUMNS, JSON, no_table, suffixes
from unfreeze_trainer.data.unread import Unread, UnreadOfShard
from unfreeze_trainer.data.web_dataset import read_web_dataset
from unfreeze_trainer.errors import JobError, is_passing, quoted
from unfreeze_trainer.sources.closed import Closed
from unfreeze_trainer.sources.pointers import stand_in_at

if TYPE_CHECKING:
    import pyarrow as pa


def read_table(
    path: str,
    columns: Sequence[str],
    where: str,
    unread: Unread | None = None,
    *,
    head: bool = False,
    kinds: Mapping[str, Cells | None] = NONE,
) -> pa.Table:
    """Read some columns of a file, or of several that fit a pattern or lie in a folder, in the order of their names.

    Parameters
    ----------
    path
        A file that is called like a table, as text also compressed (.csv.gz), a pattern of such, or their folder.
    columns
        Names of the columns that are needed.
    where
        What messages start with: field and source.
    unread
        Takes the rows that cannot be read; without it the first one is raised.
    head
        Read the first rows alone, as many as are read at a time.
    kinds
        What other columns than those of single texts, whole numbers or booleans hold.

    Raises
    ------
    JobError
        InvalidData: not found, unknown suffix, missing column, or the row that cannot be read.
    """
    unread = Unread(where, skip=False) if unread is None else unread
    kept = Kept()
    if not is_several(path):
        for table in _read_file(path, columns, where, unread, head=head, kinds=kinds):
            kept.add(table)
        return kept.whole()
    form: pa.Schema | None = None
    before = 0
    for file in shards(path, where):
        name = name_below(file, path)
        values, place = values_of(name), f"{where}: {name}"
        part = UnreadOfShard(unread, place, before)
        own = [column for column in columns if column not in values]
        told = {column: values[column] for column in columns if column in values}
        for read in _read_file(file, own, place, part, head=head, kinds=kinds):
            table = in_form(with_values(read, told), form)
            kept.add(table)
            before += table.num_rows
            if table.num_rows:
                form = widened(form, table.schema, place)
        before += len(part)
        if head:
            break
    return kept.whole()


def _read_file(
    path: str,
    columns: Sequence[str],
    where: str,
    unread: Unread,
    *,
    head: bool,
    kinds: Mapping[str, Cells | None],
) -> Iterator[pa.Table]:
    """Read some columns of one file, part by part."""
    suffix, packed = suffixes(path)
    import pyarrow as pa

    try:
        _require_file(Path(path), where)
        reader = _READERS.get(suffix)
        if reader is None:
            raise JobError("InvalidData", f"{where}: {no_table(path)}")
        _require_packing(path, suffix, packed, where)
        if suffix in (*SEPARATED, *JSON):
            require_no_utf16(path, where)
        options: dict[str, Any] = (
            {"kinds": kinds} if reader in (read_json_lines, read_web_dataset) else {}
        )  # others say it themselves
        yield from reader(path, list(columns), where, unread, head=head, **options)
    except UnicodeDecodeError as error:
        plain = JobError("InvalidData", f"{where}: not UTF-8: {error}; convert the file to UTF-8")
        raise (not_utf8(path, where) or plain) from error
    except PermissionError as error:
        raise JobError("InvalidData", f"{where}: cannot be read: {explained(error)}") from error
    except (pa.ArrowException, OSError) as error:
        if is_passing(error) or isinstance(error, MemoryError):
            raise
        if suffix in SEPARATED:
            require_closed_quotes(path, 0, where)
            if "UTF8" in str(error) and (told := not_utf8(path, where)):
                raise told from error
        if "straddl" in str(error):
            raise JobError(
                "InvalidData", f"{where}: a row is longer than 1 MiB; shorten its texts, or save them as Parquet"
            ) from error
        raise JobError("InvalidData", f"{where}: cannot be read as {suffix}: {quoted(error)}") from error


def _require_file(path: Path, where: str) -> None:
    real = Path(os.path.realpath(path))
    if not Closed(real.parent, where, "InvalidData").exists(real.name):
        what = "this is a folder, and tables are files" if path.is_dir() else "no such file"
        raise JobError("InvalidData", f"{where}: {what}: {path}; check claim and path")
    if instead := stand_in_at(path):
        raise JobError("InvalidData", f"{where}: {path} {instead}")


def _require_packing(path: str, suffix: str, packed: str, where: str) -> None:
    if packed and suffix == ".tar":
        raise JobError("InvalidData", f"{where}: unpack it to a .tar: its members are read from where they lie in it")
    if packed and suffix in BY_COLUMNS:
        raise JobError(
            "InvalidData",
            f"{where}: ends in {suffix}{packed}, and {suffix} is compressed within: unpack it, and remove {packed}",
        )
    if not packed and suffix not in (*BY_COLUMNS, ".tar") and (own := packed_as(path)):
        raise JobError("InvalidData", f"{where}: it is compressed: rename it, so that it ends in {suffix}{own}")


_READERS: dict[str, Callable[..., Iterator[pa.Table]]] = {
    **dict.fromkeys(SEPARATED, read_delimited),
    **dict.fromkeys(JSON, read_json_lines),
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    ".tar": read_web_dataset,
}
