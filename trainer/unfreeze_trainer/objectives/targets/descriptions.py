"""What is said of pictures or clips: who tokenises it says how much of it is learned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from unfreeze_api.grammar.model import Model
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.objectives.targets import Encoder, Targets, is_text, missing_rows
from unfreeze_trainer.objectives.targets.pairings import connected
from unfreeze_trainer.objectives.targets.target_texts import no_text

if TYPE_CHECKING:
    import pyarrow as pa

    from unfreeze_api.contracts.resolved import Columns


class Descriptions(Encoder[np.ndarray]):
    """Texts of pictures or clips; parts that are held out share no picture and no clip with the others."""

    together: ClassVar[str] = "a picture or a clip"
    annotation: ClassVar[str] = "Captions"
    """What a row is, in the API's word."""

    @classmethod
    def with_options(cls, options: Model | None) -> type[Encoder[Any]]:  # type: ignore[override]
        """Return the encoder of a table of this annotation."""
        return type(cls.__name__, (cls,), {"annotation": getattr(options, "annotation", cls.annotation)})

    def __init__(self, train: np.ndarray, where: str) -> None:  # noqa: ARG002 - which tokens there are the tokenizer knows
        self.labels = []

    @classmethod
    def columns(cls, names: Columns) -> list[str]:
        """Return the column of prompts, where each row has one; text, picture and clip are read beside it."""
        return [names.prompt] if cls.annotation == "Answers" else []

    @classmethod
    def broken(
        cls, column: pa.ChunkedArray, name: str, where: str, numbers: np.ndarray
    ) -> Iterator[tuple[list[int], JobError]]:
        """Yield the rows without a prompt, each time with the error about them."""
        if name:
            rows = numbers[missing_rows(prompts_in(column, name))].tolist()
            yield rows, no_text(rows, name, where)

    @classmethod
    def read(cls, column: pa.ChunkedArray, name: str, where: str) -> np.ndarray:
        """Return the number of each row's picture or clip, int64 of shape (rows,). JobError InvalidData where one has no prompt."""
        if name:
            prompts = prompts_in(column, name)
            if not is_text(prompts.type) and len(prompts):
                raise JobError(
                    "InvalidData", f"{where}: column {name!r} holds {prompts.type}, not text; name another one"
                )
            if (rows := missing_rows(prompts)).size:
                raise no_text(rows.tolist(), name, where)
        import pyarrow.compute as pc

        medium = next(one for one in ("image", "audio") if column.type.get_field_index(one) >= 0)
        found: np.ndarray = pc.struct_field(column, medium).to_numpy().astype(np.int64)
        return found

    def encode(self, read: np.ndarray, where: str, numbers: np.ndarray | None = None) -> Targets:  # noqa: ARG002
        """Return targets without values, int64 of shape (rows,); units are known once there are tokens; rows of a picture or clip are a group."""
        nothing, units = np.zeros(len(read), dtype=np.int64), np.ones(len(read), dtype=np.int64)
        groups = connected(read[:, None])  # numbered by first rows, whatever numbers were read
        return Targets(nothing, units, groups)


def prompts_in(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return the prompts among the targets of `read_pairings`, of the column of this name, as texts where there are any."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: pa.ChunkedArray = pc.struct_field(column, f"column {name}")
    return found.cast(found.type.value_type) if pa.types.is_dictionary(found.type) else found
