"""Any number of labels for each sample: lists, or texts with a separator, as class ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from unfreeze_api.grammar.model import Model
from unfreeze_trainer.errors import JobError, quoted, some_rows
from unfreeze_trainer.objectives.targets import Encoder, Targets, is_text, missing_rows, no_target
from unfreeze_trainer.objectives.targets.doubts import doubts, never_several, several_in_one
from unfreeze_trainer.objectives.targets.labels import (
    class_ids,
    encode_labels,
    frequencies_of,
    is_list,
    known_ids,
    sort_labels,
)

if TYPE_CHECKING:
    import pyarrow as pa

SEPARATOR = ","
"""Between the labels of a text, where the job names no other one."""
NO_LABEL = -1
"""Fills up the list of a sample that has fewer labels than another one."""


@dataclass(frozen=True, eq=False)
class Sets:
    """The labels of a source."""

    codes: np.ndarray
    """Index into `names` of each label of each row, int64 of shape (labels,)."""
    rows: np.ndarray
    """The row that each of them is of, int64 of shape (labels,), in order."""
    names: list[str]
    """The distinct labels, in no order."""
    count: int
    """Number of rows."""
    separated: bool = False
    """Whether they were texts with a separator, and no lists."""


class LabelSets(Encoder[Sets]):
    """Class ids of each sample's labels: the labels of the training data in order."""

    separator: ClassVar[str] = SEPARATOR
    cells = "Lists"

    @classmethod
    def with_options(cls, options: Model | None) -> type[LabelSets]:
        """Return the encoder that splits texts at the separator of a task's options."""
        separator = getattr(options, "label_separator", None) or SEPARATOR
        return type(cls.__name__, (cls,), {"separator": separator})

    def __init__(self, train: Sets, where: str) -> None:
        self.labels = sort_labels(train.names)
        self.samples = train.count
        self.frequencies = frequencies_of(train.codes, train.names, self.labels)
        self._separated = train.separated
        self._alone = train.separated and len(np.unique(train.rows)) == len(train.rows)
        if len(self.labels) <= 1:
            what = (
                f"the only label of {train.count} samples is {quoted(repr(self.labels[0]))}"
                if self.labels
                else "no sample has a label"
            )
            raise JobError(
                "InvalidData",
                f"{where}: {what}; a task with labels Multi needs at least two labels. Are they separated by"
                f" {self.separator!r}? Set labelSeparator otherwise",
            )

    def doubts(self) -> Iterator[str]:
        """Yield what is strange about the labels, such as cells with one each."""
        counts = dict(zip(self.labels, self.frequencies.tolist(), strict=True))
        yield from doubts(counts)
        if self._separated and not self._alone:
            yield from several_in_one(counts, self.separator)
        if self._alone:
            yield never_several(self.labels, self.separator)

    @staticmethod
    def broken(
        column: pa.ChunkedArray, name: str, where: str, numbers: np.ndarray
    ) -> Iterator[tuple[list[int], JobError]]:
        """Yield the rows whose cell is missing, where an empty one is none of the labels, and those with a nameless label.

        Parameters as of Encoder.
        """
        rows = numbers[_missing(column)].tolist()
        yield rows, no_target(rows, name, where)
        rows = numbers[_nameless(column)].tolist()
        yield rows, _no_name(rows, name, where)

    @classmethod
    def read(cls, column: pa.ChunkedArray, name: str, where: str) -> Sets:
        """Return the labels of a source; an empty list and an empty text are samples without a label."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if (missing := _missing(column)).size:
            raise no_target(missing.tolist(), name, where)
        if (nameless := _nameless(column)).size:
            raise _no_name(nameless.tolist(), name, where)
        lists = column.combine_chunks()
        if is_text(lists.type):
            _refuse_written_lists(lists, cls.separator, name, where)
            lists = pc.split_pattern(lists, cls.separator)
        rows, cells = np.arange(len(lists)), lists
        if is_list(lists.type):
            rows, cells = np.repeat(rows, pc.list_value_length(lists).to_numpy()), pc.list_flatten(lists)
        if is_text(cells.type):
            cells = pc.utf8_trim_whitespace(cells)
            if is_text(column.type):  # nothing before, after or between separators
                kept = pc.not_equal(cells, "").to_numpy(zero_copy_only=False)
                rows, cells = rows[kept], cells.filter(pa.array(kept))
        codes, names = encode_labels(pa.chunked_array([cells]), name, where)
        if is_list(column.type):
            _refuse_flags(rows, names, len(lists), name, where)
        pairs = np.unique(np.stack([rows, codes]), axis=1)  # a label that is named twice counts once
        return Sets(pairs[1], pairs[0], names, len(lists), separated=is_text(column.type))

    def strange(self, read: Sets) -> np.ndarray:
        """Return the rows with a label that the training data does not have, int64."""
        return np.unique(read.rows[known_ids(read.names, self.labels)[read.codes] < 0])

    def encode(self, read: Sets, where: str, numbers: np.ndarray | None = None) -> Targets:
        """Return the class ids of each row in order, int64 of shape (rows, most labels of a row), filled up with -1.

        Each sample is a unit. Held-out parts keep the shares of each sample's rarest label: those of the frequent ones
        are kept by chance alone.
        """
        numbers = np.arange(read.count) if numbers is None else numbers
        ids = class_ids(read.codes, read.names, self.labels, where, numbers[read.rows])
        order = np.lexsort((ids, read.rows))
        ids, rows = ids[order], read.rows[order]
        counts = np.bincount(rows, minlength=read.count)
        places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        values = np.full((read.count, max(1, int(counts.max(initial=0)))), NO_LABEL, dtype=np.int64)
        values[rows, places] = ids
        return Targets(values, np.ones(read.count, dtype=np.int64), self._rarest(values))

    def _rarest(self, values: np.ndarray) -> np.ndarray:
        """Return the least frequent label of each sample, and one more id for those without, int64 of shape (samples,)."""
        classes = len(self.labels)
        frequency = np.bincount(values[values != NO_LABEL], minlength=classes + 1)
        frequency[classes] = len(values) + 1
        known = np.where(values == NO_LABEL, classes, values)
        best: np.ndarray = np.take_along_axis(known, frequency[known].argmin(axis=1)[:, None], axis=1)[:, 0]
        return best


def _missing(column: pa.ChunkedArray) -> np.ndarray:
    import pyarrow.compute as pc

    return np.flatnonzero(pc.is_null(column).to_numpy())


def _nameless(column: pa.ChunkedArray) -> np.ndarray:
    """Return the indices of rows whose list has a label that is null, or text without a word."""
    import pyarrow.compute as pc

    if not is_list(column.type):
        return np.empty(0, dtype=np.int64)
    lists = column.combine_chunks()
    rows = np.repeat(np.arange(len(lists)), pc.fill_null(pc.list_value_length(lists), 0).to_numpy())
    return np.unique(rows[missing_rows(pc.list_flatten(lists))])


def _refuse_written_lists(texts: pa.Array, separator: str, name: str, where: str) -> None:
    """Raise JobError where a text is a list as JSON or Python writes it: its labels would have brackets and quotes."""
    import pyarrow.compute as pc

    found = pc.match_substring_regex(texts, _WRITTEN_LIST).to_numpy(zero_copy_only=False)
    if (rows := np.flatnonzero(found)).size:
        raise JobError(
            "InvalidData",
            f"{where}: column {name!r} of {some_rows(rows.tolist())} holds a list that is written out"
            f" ({quoted(repr(texts[int(rows[0])].as_py()[:60]))}): write its labels with {separator!r} between them, without brackets and"
            " quotes, or save lists as JSON lines or Parquet",
        )


_WRITTEN_LIST = r"""^\s*([\[({]\s*(".*"|'.*'),?\s*[\])}]|\[\s*(-?[0-9]+\.?(\s*[,\s]\s*-?[0-9]+\.?)*)?\s*\])\s*$"""
"""Of JSON, Python and numpy."""
_FLAGS = ({"0", "1"}, {"false", "true"})


def _refuse_flags(rows: np.ndarray, names: Sequence[str], count: int, name: str, where: str) -> None:
    """Raise JobError where each list has yes or no for each label: 0 and 1 would be the labels, and nearly all samples have both."""
    lengths = np.bincount(rows, minlength=count)
    if any({*names} <= flags for flags in _FLAGS) and len(lengths) and lengths.min() == lengths.max() > 1:
        raise JobError(
            "InvalidData",
            f"{where}: column {name!r} holds lists of {lengths[0]} times {' or '.join(sorted(names))}, yes or no for each of as many labels:"
            " write lists of the names, or numbers, of the labels that a sample has (docs/conversions.md)",
        )


def _no_name(rows: Sequence[int], name: str, where: str) -> JobError:
    message = (
        f"{where}: a label without a name in the list in column {name!r} of {some_rows(rows)}: remove it, or name it"
    )
    return JobError("InvalidData", message)
