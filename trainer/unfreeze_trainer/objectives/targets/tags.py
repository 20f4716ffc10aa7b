"""One tag for each word of each sample, as class ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_trainer.errors import JobError, quoted, some_of
from unfreeze_trainer.objectives.targets import Encoder, Targets
from unfreeze_trainer.objectives.targets.doubts import doubts
from unfreeze_trainer.objectives.targets.labels import MAX_LABELS, class_ids, known_ids, sort_labels

if TYPE_CHECKING:
    import pyarrow as pa

OUTSIDE = "O"
"""Tag of a word that is in no span."""
PREFIXES = {"B": "B", "I": "I", "E": "E", "L": "E", "S": "S", "U": "S"}
"""What stands before a span's kind, and which part of the span it says: begin, inside, end, single. Ends and single words have
two names."""


@dataclass(frozen=True, eq=False)
class TagCodes:
    """The tags of a source."""

    codes: np.ndarray
    """Index into `names` of each word, of all rows one after the other, int64."""
    names: list[str]
    """The distinct tags, in no order."""
    lengths: np.ndarray
    """Words of each row, int64."""


class Tags(Encoder[TagCodes]):
    """Class ids: the tags of the training data in order."""

    def __init__(self, train: TagCodes, where: str) -> None:
        self.labels = sort_labels(train.names)
        self._counts = dict(
            zip(train.names, np.bincount(train.codes, minlength=len(train.names)).tolist(), strict=True)
        )
        if len(self.labels) == 1:
            raise JobError(
                "InvalidData",
                f"{where}: all {len(train.codes)} words have the tag {quoted(repr(self.labels[0]))}; token classification needs"
                " at least two tags",
            )
        kinds = [tag for tag in self.labels if tag != OUTSIDE]
        plain = [tag for tag in kinds if not has_prefix(tag)]
        if plain and any(tag.startswith("B-") for tag in kinds):
            raise JobError(
                "InvalidData",
                f"{where}: some tags say which part of a span a word is, like"
                f" {quoted(repr(next(tag for tag in kinds if tag.startswith('B-'))))}, others do not:"
                f" {quoted(some_of([repr(tag) for tag in plain]))}. Begin all tags but {OUTSIDE} with B- and I- (E-, S-, L-, U-"
                " where you have them), or none",
            )

    def doubts(self) -> Iterator[str]:
        """Yield what is strange about the tags, such as two that differ in capitals alone."""
        return doubts(self._counts)

    @staticmethod
    def read(column: pa.ChunkedArray, name: str, where: str) -> TagCodes:  # noqa: ARG004 - read_words has checked the cells
        """Return the tags of a source, whose cells are lists of texts. JobError InvalidData of too many different ones."""
        import pyarrow as pa
        import pyarrow.compute as pc

        lists = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        encoded = pc.list_flatten(lists).dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        names = encoded.dictionary.to_pylist()
        if len(names) > MAX_LABELS:
            raise JobError(
                "InvalidData",
                f"{where}: its {len(encoded)} words have {len(names)} different tags, more than {MAX_LABELS}: are they in the right"
                " column? Name another one in columns",
            )
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        return TagCodes(encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), names, lengths)

    def strange(self, read: TagCodes) -> np.ndarray:
        """Return the rows with a tag that the training data does not have, int64."""
        rows = np.repeat(np.arange(len(read.lengths)), read.lengths)
        return np.unique(rows[known_ids(read.names, self.labels)[read.codes] < 0])

    def encode(self, read: TagCodes, where: str, numbers: np.ndarray | None = None) -> Targets:
        """Return arrays of class ids, one for each row, int32 of shape (words,); each word is a unit."""
        count = len(read.lengths)
        rows = np.repeat(np.arange(count) if numbers is None else numbers, read.lengths)
        ids = class_ids(read.codes, read.names, self.labels, where, rows).astype(np.int32)
        values = np.empty(count, dtype=object)
        values[:] = np.split(ids, np.cumsum(read.lengths)[:-1])
        return Targets(values, read.lengths, np.zeros(count, dtype=np.int64))


def has_prefix(tag: str) -> bool:
    """Return whether a tag says which part of a span a word is."""
    return len(tag) > 2 and tag[1] == "-" and tag[0] in PREFIXES  # noqa: PLR2004 - a letter, a hyphen and a kind


def parts_and_kinds(labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return for each tag the part of a span that it says, and the span's kind, "" for a word in none.

    Where tags say no part, each is a kind, and words with the same tag that stand together are a span.
    """
    said = all(has_prefix(tag) for tag in labels if tag != OUTSIDE)
    kinds = ["" if tag == OUTSIDE else tag[2:] if said else tag for tag in labels]
    parts = [PREFIXES[tag[0]] if said and tag != OUTSIDE else "I" for tag in labels]
    return parts, kinds
