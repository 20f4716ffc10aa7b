"""Tokenised texts that an encoder reads, or that a decoder learns: flat in memory, with which of them are cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK_ROWS = 4096


class SequenceTokens:
    """Token ids of many texts, int32, one after the other, with the tokenizer's special tokens around each.

    Parameters
    ----------
    tokenizer
        A transformers tokenizer.
    texts
        Strings, none of them missing.
    max_length
        Tokens kept of each text, special ones included.
    target
        Whether a decoder learns them: then what is kept is the beginning, so that a text that is cut does not teach the model to stop.
        An encoder reads the special tokens at the end of a text that is cut, too.
    remedy
        What to do about a text that is too long.
    """

    def __init__(self, tokenizer: Any, texts: pa.ChunkedArray, max_length: int, *, target: bool, remedy: str) -> None:
        self._tokenizer, self._max_length, self._target, self._remedy = tokenizer, max_length, target, remedy
        self._around = self._ids_of([""])[0]
        self._special = frozenset(self._around)
        ids: list[np.ndarray] = [np.empty(0, np.int32)]
        beyond: list[int] = []
        self.wrong: list[tuple[int, str]] = []
        """Texts of which nothing is left, by index, each with why, as the rest of a message that names the column."""
        for index, whole in enumerate(self._tokenized(texts)):
            kept = self._cut(whole, texts, index)
            if all(token in self._special for token in kept):
                self.wrong.append((index, self._nothing_left(whole)))
            ids.append(np.array(kept, dtype=np.int32))
            beyond.append(len(whole) - len(kept))
        self.lengths = np.array([len(own) for own in ids[1:]], dtype=np.int64)
        """Tokens of each text that are kept, int64 of shape (texts,)."""
        self.beyond = np.array(beyond, dtype=np.int64)
        """Tokens of each text that are not, int64 of shape (texts,)."""
        self._ids = np.concatenate(ids)
        self._ends = np.cumsum(self.lengths)

    def _tokenized(self, texts: pa.ChunkedArray) -> Iterator[list[int]]:
        for start in range(0, len(texts), _CHUNK_ROWS):
            yield from self._ids_of(texts.slice(start, _CHUNK_ROWS).to_pylist())

    def _ids_of(self, texts: Sequence[str], **options: Any) -> list[list[int]]:
        options |= {"return_attention_mask": False, "verbose": False}
        given = {"text_target": texts} if self._target else {"text": texts}
        found: list[list[int]] = self._tokenizer(**given, **options)["input_ids"]
        return found

    def _cut(self, whole: list[int], texts: pa.ChunkedArray, index: int) -> list[int]:
        if len(whole) <= self._max_length:
            return whole
        if self._target:
            return whole[: self._max_length]
        room = max(self._max_length, len(self._special))  # tokenizers refuse less
        return self._ids_of([texts[index].as_py()], truncation=True, max_length=room)[0]

    def _nothing_left(self, whole: Sequence[int]) -> str:
        if all(token in self._special for token in whole):
            return "holds nothing that the model's tokenizer makes a token of; fill it in, or remove the row"
        return (
            f"has {len(whole)} tokens, and the {self._max_length} that are kept hold special ones alone: {self._remedy}"
        )

    def take(self, rows: np.ndarray) -> None:
        """Keep some texts alone, by their sorted indices."""
        within = np.zeros(len(self.lengths), dtype=np.bool_)
        within[rows] = True
        self._ids = self._ids[np.repeat(within, self.lengths)]
        self.lengths, self.beyond = self.lengths[rows], self.beyond[rows]
        self._ends = np.cumsum(self.lengths)

    def of(self, row: int) -> np.ndarray:
        """Return the ids of a text, int32."""
        return self._ids[int(self._ends[row] - self.lengths[row]) : int(self._ends[row])]

    def ends(self, stops: Sequence[int]) -> bool:
        """Return whether any text holds a stop."""
        return bool(np.isin(self._ids, stops).any())

    def twice(self, stops: Sequence[int]) -> int:
        """Return how many texts hold stops of their own, beside those that the tokenizer puts around each."""
        counts = np.bincount(self._owners(np.isin(self._ids, stops)))
        return int((counts > np.isin(self._around, stops).sum()).sum())

    def _owners(self, found: np.ndarray) -> np.ndarray:
        """Return the index of the text that each token of a mask is of."""
        return np.searchsorted(self._ends, np.flatnonzero(found), side="right")

    def unknown(self) -> int:
        """Return how many texts hold something that the tokenizer has no token for."""
        token = self._tokenizer.unk_token_id
        if token is None or token in self._special:
            return 0
        return len(np.unique(self._owners(self._ids == token)))

    def first_beyond(self, rows: int) -> tuple[int, int] | None:
        """Return index and token id of the first text with an id that has no row in a table of so many; None without."""
        beyond = np.flatnonzero(self._ids >= rows)
        if not beyond.size:
            return None
        return int(np.searchsorted(self._ends, beyond[0], side="right")), int(self._ids[beyond[0]])
