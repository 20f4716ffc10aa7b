"""Tokenised prompts and texts of pictures or clips: flat in memory, with which of them are learned, and which are cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from unfreeze_trainer.data.samples import DataSource

_CHUNK_ROWS = 4096


class CaptionTokens:
    """Token ids of the prompts and texts of many rows, int32, one after the other.

    Parameters
    ----------
    tokenizer
        A transformers tokenizer.
    prompts
        What stands before each text, read and not learned; None for nothing.
    texts
        Strings, none of them missing.
    max_length
        Tokens kept of each row.
    end
        The token that ends a text; one that is cut does not end, so that it does not teach the model to stop.
    remedy
        What to do about a row that is too long.

    Notes
    -----
    Prompt and text are tokenised each for itself, with a blank between them.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompts: pa.ChunkedArray | str | None,
        texts: pa.ChunkedArray,
        max_length: int,
        *,
        end: int,
        remedy: str,
    ) -> None:
        self._tokenizer = tokenizer
        ids: list[np.ndarray] = [np.empty(0, np.int32)]
        learned, beyond = list[int](), list[int]()
        self.wrong: list[tuple[int, bool, str]] = []
        """Rows of which nothing is learned, by index, each with whether the prompt is to blame, and why, as the rest of a message."""
        self.ended = 0
        """Texts that hold the token that ends one, which stands behind each anyway."""
        same = [] if prompts is None or not isinstance(prompts, str) else prompt_ids(tokenizer, prompts)
        for start in range(0, len(texts), _CHUNK_ROWS):
            said = [cell.strip() for cell in texts.slice(start, _CHUNK_ROWS).to_pylist()]
            after = self._ids_of([f" {text}" if prompts is not None else text for text in said])
            before = [same] * len(said)
            if prompts is not None and not isinstance(prompts, str):
                before = self._ids_of([cell.strip() for cell in prompts.slice(start, _CHUNK_ROWS).to_pylist()])
            for place, (prompt, text) in enumerate(zip(before, after, strict=True), start):
                room = max_length - len(prompt)
                if not text:
                    self.wrong.append(
                        (
                            place,
                            False,
                            "holds nothing that the model's tokenizer makes a token of; fill it in, or remove the row",
                        )
                    )
                elif room < 1:
                    why = f"has {len(prompt)} tokens, and of the {max_length} that are kept of a row none is left for the text: {remedy}"
                    self.wrong.append((place, True, why))
                self.ended += end in text
                kept = [*text, end][: max(room, 0)]
                ids.append(np.array([*prompt, *kept], dtype=np.int32))
                learned.append(len(kept))
                beyond.append(len(text) + 1 - len(kept))
        self.lengths = np.array([len(own) for own in ids[1:]], dtype=np.int64)
        """Tokens of each row that are kept, int64 of shape (rows,)."""
        self.learned = np.array(learned, dtype=np.int64)
        """Of these, those that are learned: the last ones."""
        self.beyond = np.array(beyond, dtype=np.int64)
        """Tokens of each text that are not kept, the one that ends it among them."""
        self._ids = np.concatenate(ids)
        self._ends = np.cumsum(self.lengths)

    def _ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        return found

    def take(self, rows: np.ndarray) -> None:
        """Keep some rows alone, by their sorted indices."""
        within = np.zeros(len(self.lengths), dtype=np.bool_)
        within[rows] = True
        self._ids = self._ids[np.repeat(within, self.lengths)]
        self.lengths, self.learned, self.beyond = (part[rows] for part in (self.lengths, self.learned, self.beyond))
        self._ends = np.cumsum(self.lengths)

    def of(self, row: int) -> tuple[np.ndarray, int]:
        """Return the ids of a row, int32, and how many of them, the last ones, are learned."""
        return self._ids[int(self._ends[row] - self.lengths[row]) : int(self._ends[row])], int(self.learned[row])

    def first_beyond(self, rows: int) -> tuple[int, int] | None:
        """Return index and token id of the first row with an id that has no row in a table of so many; None without."""
        beyond = np.flatnonzero(self._ids >= rows)
        if not beyond.size:
            return None
        return int(np.searchsorted(self._ends, beyond[0], side="right")), int(self._ids[beyond[0]])


def prompt_column(source: DataSource) -> pa.ChunkedArray:
    """Return the prompts of a source that has one for each row: among its targets, or all that they are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_struct(source.targets.type):
        return source.targets
    return pc.struct_field(source.targets, f"column {source.dataset.columns.prompt}")


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Return the tokens of a prompt, without special ones around it."""
    found: list[int] = tokenizer(prompt.strip(), add_special_tokens=False)["input_ids"]
    return found
