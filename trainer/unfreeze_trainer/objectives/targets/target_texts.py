"""The text that each sample is to become: who tokenises it says how much of it is learned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze_trainer.errors import JobError, some_rows
from unfreeze_trainer.objectives.targets import Encoder, Targets, is_text, missing_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from unfreeze_api.contracts.resolved import Columns


class TargetTexts(Encoder[int]):
    """Texts of a column of their own."""

    def __init__(self, train: int, where: str) -> None:  # noqa: ARG002 - which tokens there are the tokenizer knows
        self.labels = []

    @staticmethod
    def columns(names: Columns) -> list[str]:
        """Return the column of the texts."""
        return [names.target]

    @staticmethod
    def broken(
        column: pa.ChunkedArray, name: str, where: str, numbers: np.ndarray
    ) -> Iterator[tuple[list[int], JobError]]:
        """Yield the rows without a text, each time with the error about them."""
        rows = numbers[missing_rows(column)].tolist()
        yield rows, no_text(rows, name, where)

    @staticmethod
    def read(column: pa.ChunkedArray, name: str, where: str) -> int:
        """Return how many rows there are; JobError InvalidData where one has no text."""
        kind: Any = getattr(column.type, "value_type", column.type)
        if not is_text(kind) and len(column):
            raise JobError("InvalidData", f"{where}: column {name!r} holds {column.type}, not text; name another one")
        if (rows := missing_rows(column)).size:
            raise no_text(rows.tolist(), name, where)
        return len(column)

    def encode(self, read: int, where: str, numbers: np.ndarray | None = None) -> Targets:  # noqa: ARG002
        """Return targets without values, int64 of shape (rows,); units are known once there are tokens; all are one group."""
        nothing = np.zeros(read, dtype=np.int64)
        return Targets(nothing, np.ones(read, dtype=np.int64), nothing)


def no_text(rows: list[int], name: str, where: str) -> JobError:
    """Return the error about rows, as indices from 0, without a text in a column."""
    it = "it" if len(rows) == 1 else "them"
    return JobError("InvalidData", f"{where}: no text in column {name!r} of {some_rows(rows)}; fill in or remove {it}")
