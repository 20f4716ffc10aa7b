"""One label for each sample: labels of any type as text, and as class ids."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_trainer.errors import JobError, quoted, some_rows
from unfreeze_trainer.objectives.targets import Encoder, Targets, is_text, missing_rows, no_target
from unfreeze_trainer.objectives.targets.doubts import doubts, few_of_each, several_in_one

if TYPE_CHECKING:
    import pyarrow as pa

MAX_LABELS = 10_000
_WHOLE = re.compile(r"-?\d{1,4000}")
"""Whole numbers, as many digits as Python reads."""
_ZERO_FRACTION = re.compile(r"([+-]?\d{1,15})\.0*")
_EXACT = 2.0**53
"""Up to which each whole number is a float."""
SHOWN = 20
"""Labels that a message lists."""
_LIST_SHOWN = 60


@dataclass(frozen=True, eq=False)
class Codes:
    """The labels of a source."""

    codes: np.ndarray
    """Index into `names` of each row, int64."""
    names: list[str]
    """The distinct labels, in no order."""


class Labels(Encoder[Codes]):
    """Class ids: the labels of the training data in order."""

    def __init__(self, train: Codes, where: str) -> None:
        self.labels = sort_labels(train.names)
        self.samples = len(train.codes)
        self.frequencies = frequencies_of(train.codes, train.names, self.labels)
        if len(self.labels) == 1:
            raise JobError(
                "InvalidData",
                f"{where}: all {len(train.codes)} samples have the label {quoted(repr(self.labels[0]))}; classification needs at"
                " least two labels",
            )

    def doubts(self) -> Iterator[str]:
        """Yield what is strange about the labels, such as two that differ in blanks alone."""
        counts = dict(zip(self.labels, self.frequencies.tolist(), strict=True))
        for kind in (doubts, several_in_one, few_of_each):
            yield from kind(counts)

    @staticmethod
    def read(column: pa.ChunkedArray, name: str, where: str) -> Codes:
        """Return the labels of a source."""
        return Codes(*encode_labels(column, name, where))

    def strange(self, read: Codes) -> np.ndarray:
        """Return the rows whose label the training data does not have, int64."""
        return np.flatnonzero(known_ids(read.names, self.labels)[read.codes] < 0)

    def encode(self, read: Codes, where: str, numbers: np.ndarray | None = None) -> Targets:
        """Return class ids, int64 of shape (rows,); each sample is a unit, held-out parts keep the shares of classes."""
        ids = class_ids(read.codes, read.names, self.labels, where, numbers)
        return Targets(ids, np.ones(len(ids), dtype=np.int64), ids)


def encode_labels(column: pa.ChunkedArray, name: str, where: str) -> tuple[np.ndarray, list[str]]:
    """Return for each row an index into the distinct labels, int64 of shape (rows,), and these as text.

    Text stays as it is, whole numbers and booleans are shown as text (`3`, `true`). Numbers of a type for fractions are whole ones
    where none has a fraction: pandas writes 3.0 where labels of other rows are missing.

    Raises
    ------
    JobError
        InvalidData: missing labels, numbers with a fraction, other types, or more than 10,000 labels.
    """
    import pyarrow as pa

    if is_list(column.type):
        column = _alone(column, name, where)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    text, fractions = is_text(kind), pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not (text or fractions or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise _not_labels(where, name, f"holds {kind}", column[0].as_py() if len(column) else None)
    if pa.types.is_dictionary(column.type):
        column = column.cast(kind)
    if (missing := missing_rows(column)).size:
        raise no_target(missing.tolist(), name, where)
    if fractions:
        column = _whole_numbers(column, kind, name, where)
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    if len(values) > MAX_LABELS:
        raise JobError(
            "InvalidData",
            f"{where}: column {name!r} holds {len(values)} different values in {len(column)} rows, more than {MAX_LABELS}"
            " labels: is it the right column? Name another one in columns.label",
        )
    names = [value if isinstance(value, str) else str(value).lower() for value in values]
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    if text and any(_has_fraction(value) for value in names) and all(_is_number(value) for value in names):
        if broken := [value for value in names if _has_fraction(value) and not _ZERO_FRACTION.fullmatch(value)]:
            raise _not_labels(where, name, "holds numbers with a fraction", broken[0])
        whole = [_ZERO_FRACTION.sub(r"\1", value) for value in names]
        names = list(dict.fromkeys(whole))  # 3 and 3.0 are one label
        codes = np.array([names.index(value) for value in whole], dtype=np.int64)[codes]
    return codes, names


def _whole_numbers(column: pa.ChunkedArray, kind: pa.DataType, name: str, where: str) -> pa.ChunkedArray:
    """Return a column of numbers without a fraction as one of whole numbers; JobError InvalidData where one has a fraction."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = column.cast(pa.float64())
    broken = np.flatnonzero(~pc.equal(numbers, pc.trunc(numbers)).to_numpy() | (np.abs(numbers.to_numpy()) > _EXACT))
    if broken.size:
        raise _not_labels(where, name, f"holds {kind}", column[int(broken[0])].as_py())
    return numbers.cast(pa.int64())


def is_list(kind: pa.DataType) -> bool:
    """Return whether cells of a type are lists."""
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _alone(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """Return what stands in lists of one label each; JobError InvalidData where one has several, or none."""
    import pyarrow.compute as pc

    lengths = pc.fill_null(pc.list_value_length(column), 1).to_numpy()
    if (rows := np.flatnonzero(lengths != 1)).size:
        row = int(rows[0])
        raise JobError(
            "InvalidData",
            f"{where}: column {name!r} holds lists of labels, and that of row {row + 1} ({quoted(repr(column[row].as_py())[:_LIST_SHOWN])}) has"
            f" {lengths[row]}. For several labels of a sample set the task's labels to Multi",
        )
    return pc.list_element(column, 0)


def _not_labels(where: str, name: str, what: str, example: object) -> JobError:
    return JobError(
        "InvalidData",
        f"{where}: column {name!r} {what} ({quoted(repr(example))}): labels are text, whole numbers or booleans. Name another column"
        " in columns.label, or turn the numbers into classes first",
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _has_fraction(text: str) -> bool:
    return _is_number(text) and not text.strip().lstrip("+-").isdecimal()


def sort_labels(names: Sequence[str]) -> list[str]:
    """Return the labels in the order of class ids: as text, or by value when all are whole numbers."""
    if all(_WHOLE.fullmatch(name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def frequencies_of(codes: np.ndarray, names: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Return how many of the codes stand for each of the labels, int64 of shape (labels,)."""
    counts = dict(zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True))
    return np.array([counts[label] for label in labels], dtype=np.int64)


def class_ids(
    codes: np.ndarray, names: Sequence[str], labels: Sequence[str], where: str, numbers: np.ndarray | None = None
) -> np.ndarray:
    """Turn codes into class ids, the indices into `labels`; int64 of shape (rows,).

    `numbers` are the rows of the file, where some of them were left out or have several labels.

    Raises
    ------
    JobError
        InvalidData when there is a label that the training data does not have.
    """
    result = known_ids(names, labels)[codes]
    if (unknown := np.flatnonzero(result < 0)).size:
        strange = sorted({names[codes[row]] for row in unknown})
        raise JobError(
            "InvalidData",
            f"{where}: {some_rows((unknown if numbers is None else np.unique(numbers[unknown])).tolist())}: label {_shown(strange)} does not"
            f" occur in the training data, which has {_shown(labels)}{', ...' if len(labels) > SHOWN else ''};"
            " a model cannot predict what it never saw: correct the label, or add such samples to spec.data.train",
        )
    return result


def known_ids(names: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Return the index of each name in `labels`, -1 where it is none of them; int64 of shape (names,)."""
    ids = {label: index for index, label in enumerate(labels)}
    return np.array([ids.get(name, -1) for name in names], dtype=np.int64)


def _shown(labels: Sequence[str]) -> str:
    return quoted(", ".join(map(repr, labels[:SHOWN])))
