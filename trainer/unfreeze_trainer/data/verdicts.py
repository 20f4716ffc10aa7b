"""Columns that say which rows do not hold, and that nothing reads: all rows would be learned alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_trainer.data.cells import read_cells
from unfreeze_trainer.data.columnar import schema_of
from unfreeze_trainer.data.shards import is_several, shards
from unfreeze_trainer.data.suffixes import BY_COLUMNS, is_table, suffixes
from unfreeze_trainer.errors import JobError, some_of, some_rows

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import Dataset

VERDICTS = ("label", "labels", "gold_label", "is_duplicate", "duplicate", "score", "similarity", "relevance")
"""Of columns that say whether, or how far, what stands in a row belongs together."""
_ANSWER, _REFUSED = "answer", ("ignore", "reject")
"""As Prodigy writes what somebody thought of a row; the others are accepted."""
_FLAGS = ({"0", "1"}, {"0.0", "1.0"}, {"true", "false"}, {"yes", "no"})
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_SCORE = re.compile(r"[01]|-?[0-9]+\.[0-9]+")
_ROWS = 50_000
"""That are looked at, of a table with such a column."""


def verdicts(dataset: Dataset, read: Sequence[str], *, holds: str, scored: bool) -> Iterator[str]:
    """Yield which of a table's columns says no of some rows and is not read, in sentences for people.

    Parameters
    ----------
    dataset
        The training data.
    read
        The columns that say what is learned.
    holds, scored
        Of the targets: see Encoder.
    """
    import pyarrow as pa

    with suppress(JobError, OSError, pa.ArrowException):  # whoever reads it says so
        wanted = {_ANSWER, *VERDICTS} if holds else {_ANSWER}
        wanted -= {*read}
        if wanted.isdisjoint(_names(dataset.path)):
            return
        table = read_cells(dataset.path, dataset.path, rows=_ROWS)
        for name in sorted(wanted & table.texts.keys()):
            cells = [(cell or "").strip().lower() for cell in table.texts[name].to_pylist()]
            if name == _ANSWER:
                yield from _of_prodigy(cells, table.numbers)
            else:
                yield from _of_rows(name, cells, holds, scored=scored)


def _of_prodigy(cells: list[str], numbers: np.ndarray) -> Iterator[str]:
    refused = [word for word in _REFUSED if word in cells]
    if refused and {*cells} <= {"", "accept", *_REFUSED}:
        rows = numbers[np.isin(cells, refused)].tolist()
        yield (
            f"column {_ANSWER!r} says {' or '.join(refused)} of {some_rows(rows)}, as Prodigy does, and is not read: these are learned like all others,"
            " so leave them out (docs/conversions.md)"
        )


def _of_rows(name: str, cells: list[str], holds: str, *, scored: bool) -> Iterator[str]:
    known = sorted({*cells} - {""})
    are_flags = {*known} in _FLAGS
    if len(known) > 1 and (are_flags or (scored and all(map(_NUMBER.fullmatch, known))) or name == "gold_label"):
        is_score = scored and all(map(_SCORE.fullmatch, known))
        yield (
            f"column {name!r} ({some_of(known, 3)}) is not read, and each row is learned as {holds}: leave out those that are none"
            " (docs/conversions.md)"
            + f", or learn how far they are by annotation Scores and columns.score {name}"
            * is_score
        )


def _names(path: str) -> list[str]:
    """Return the names of a table's columns, of the first file where it lies in several; none of what is no table."""
    several = is_several(path)
    file = str(shards(path, path)[0]) if several else path
    if not is_table(file) or suffixes(file)[0] == ".tar" or (not several and Path(file).is_dir()):
        return []
    return list(schema_of(file).names) if suffixes(file)[0] in BY_COLUMNS else read_cells(file, file, rows=1).names
