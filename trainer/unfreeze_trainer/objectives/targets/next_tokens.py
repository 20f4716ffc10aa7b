"""The tokens of each sample itself: nothing but its text says what is to be predicted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from unfreeze_api.grammar.model import Model
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.objectives.targets import Encoder, Targets

if TYPE_CHECKING:
    import pyarrow as pa

    from unfreeze_api.contracts.resolved import Columns


class NextTokens(Encoder[int]):
    """What a sample is to become stands in its inputs."""

    annotation: ClassVar[str] = "Messages"
    """What a row is, in the API's word."""

    @classmethod
    def with_options(cls, options: Model | None) -> type[Encoder[Any]]:  # type: ignore[override]
        """Return the encoder of a table of this annotation."""
        annotation = getattr(options, "annotation", cls.annotation)
        holds = "an answer that is wanted" if annotation == "Completions" else ""
        return type(cls.__name__, (cls,), {"annotation": annotation, "holds": holds})

    def __init__(self, train: int, where: str) -> None:  # noqa: ARG002 - which tokens there are the tokenizer knows
        self.labels = []

    @classmethod
    def columns(cls, names: Columns) -> list[str]:
        """Return the columns that make a sample."""
        return {"Messages": [names.messages], "Text": [names.text]}.get(
            cls.annotation, [names.prompt, names.completion]
        )

    @staticmethod
    def broken(*_: Any) -> Iterator[tuple[list[int], JobError]]:
        """Yield nothing: who reads the inputs has looked at all rows."""
        yield from ()

    @staticmethod
    def read(column: pa.ChunkedArray, name: str, where: str) -> int:  # noqa: ARG004 - rows have been read
        """Return how many rows there are."""
        return len(column)

    def encode(self, read: int, where: str, numbers: np.ndarray | None = None) -> Targets:  # noqa: ARG002
        """Return targets without values, int64 of shape (rows,); units are known once there are tokens; all are one group."""
        nothing = np.zeros(read, dtype=np.int64)
        return Targets(nothing, np.ones(read, dtype=np.int64), nothing)
