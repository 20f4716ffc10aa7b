"""Tokenised texts, flat in memory, and their padding into batches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unfreeze_trainer.data.few import ends_of, few
from unfreeze_trainer.errors import one_line

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_TEXTS = 4096
PAD_MULTIPLE = 8
"""Lengths are padded to a multiple of it: tensor cores' tile, and fewer distinct shapes."""


class TextError(ValueError):
    """A text that a tokenizer fails at; the message says why, without its row."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row
        """Index of the text."""


_TURN = threading.RLock()
"""Held by who uses a tokenizer: it has a state, what it truncates, that no two threads may change at once."""


class Tokens:
    """Token ids of many texts: int32, one after the other, four bytes per token.

    Parameters
    ----------
    tokenizer
        A transformers tokenizer.
    texts
        An Arrow array of strings, or of structs of two: pairs, which the tokenizer makes one sequence of each.
    max_length
        Tokens kept of each text, special ones included; of a pair the longer text is cut first.

    Raises
    ------
    TextError
        The tokenizer fails at a text.
    """

    def __init__(self, tokenizer: Any, texts: pa.ChunkedArray, max_length: int) -> None:
        self._pad_id = tokenizer.pad_token_id
        self._pad_left = tokenizer.padding_side == "left"
        self._tokenizer, self._max_length = tokenizer, max_length
        # Models that tell segments apart get the tokenizer's segment ids only where they are not all 0, the default: of a
        # single text they often are, of a pair by the same tokenizer they are not.
        with _TURN:
            self._type_ids = has_types(tokenizer, pairs=texts.type.num_fields > 0)
        self._pad_type_id = tokenizer.pad_token_type_id
        ids: list[np.ndarray] = []
        types: list[np.ndarray] = []
        lengths: list[int] = []
        for start in range(0, len(texts), CHUNK_TEXTS):
            part = texts.slice(start, CHUNK_TEXTS)
            columns = [column.to_pylist() for column in part.flatten()] if part.type.num_fields else [part.to_pylist()]
            chunk = self._tokenized(columns, start)
            lengths += map(len, chunk["input_ids"])
            ids.append(_flatten(chunk["input_ids"]))
            if self._type_ids:
                types.append(_flatten(chunk["token_type_ids"]))
        self.ids = np.concatenate(ids)
        self._types = np.concatenate(types) if types else None
        self.ends = np.cumsum(lengths, dtype=np.int64)
        self.lengths = np.array(lengths, dtype=np.int64)
        """Tokens of each text, int64 of shape (texts,)."""

    def _tokenized(self, texts: list[list[str]], start: int, **options: Any) -> Any:
        """Return what the tokenizer makes of texts, or of first and second texts of pairs; the first has index `start`."""
        options |= {"truncation": True, "max_length": self._max_length, "return_attention_mask": False}
        with _TURN:
            return _tokenize(self._tokenizer, texts, start, options | {"return_token_type_ids": self._type_ids})

    def first_beyond(self, rows: int) -> tuple[int, int] | None:
        """Return index and token id of the first text with an id that has no row in a table of so many; None without."""
        beyond = np.flatnonzero(self.ids >= rows)
        if not beyond.size:
            return None
        return int(np.searchsorted(self.ends, beyond[0], side="right")), int(self.ids[beyond[0]])

    def first_uneven(self, token: int, times: int) -> int | None:
        """Return the index of the first text that does not hold a token so many times; None without."""
        texts = np.searchsorted(self.ends, np.flatnonzero(self.ids == token), side="right")
        uneven = np.flatnonzero(np.bincount(texts, minlength=len(self.ends)) != times)
        return int(uneven[0]) if uneven.size else None

    def unknown(self) -> float:
        """Return the share of tokens, special ones aside, that stand for what the tokenizer does not know."""
        unknown = self._tokenizer.unk_token_id
        special = {*self._tokenizer.all_special_ids} - {unknown}
        ends = {getattr(self._tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad", "cls", "sep", "mask")}
        if unknown is None or unknown in ends:  # GPT-2's names its end of a text
            return 0.0
        counted = ~np.isin(self.ids, list(special))
        return float((self.ids[counted] == unknown).mean()) if counted.any() else 0.0

    def collate(self, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Return input_ids and attention_mask (and token_type_ids where the model needs them).

        int64 of shape (rows, length): the length of the longest of these texts, up to the next multiple of 8.
        """
        places = np.asarray(rows, dtype=np.int64)
        sizes = self.lengths[places]
        longest = int(sizes.max())
        length = min(-(-longest // PAD_MULTIPLE) * PAD_MULTIPLE, max(self._max_length, longest))
        columns = np.arange(length) - ((length - sizes)[:, None] if self._pad_left else np.zeros_like(sizes)[:, None])
        filled = (columns >= 0) & (columns < sizes[:, None])
        tokens = ((self.ends[places] - sizes)[:, None] + columns)[filled]
        ids = np.full(filled.shape, self._pad_id, dtype=np.int64)
        ids[filled] = self.ids[tokens]
        mask = filled.astype(np.int64)
        types = np.full(filled.shape, self._pad_type_id, dtype=np.int64)
        if self._types is not None:
            types[filled] = self._types[tokens]
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        return batch | {"token_type_ids": torch.from_numpy(types)} if self._types is not None else batch


def trimmed(batch: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    """Return a batch without the columns that are padding in all of its rows; `mask`, (rows, length), is not 0 where there is none."""
    return {
        name: tensor[:, mask.bool().any(dim=0)] if tensor.shape == mask.shape else tensor
        for name, tensor in batch.items()
    }


def _flatten(lists: list[list[int]]) -> np.ndarray:
    return np.fromiter((token for tokens in lists for token in tokens), dtype=np.int32)


def has_types(tokenizer: Any, *, pairs: bool) -> bool:
    """Return whether a tokenizer gives segment ids that are not all 0, to texts or to pairs of them."""
    return any(tokenizer(*(("a", "b") if pairs else ("a",))).get("token_type_ids", []))


def runs_together(tokenizer: Any) -> bool:
    """Return whether nothing stands between the texts of a pair, where it would be the same tokens as one text."""
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", "b"))
    whole = tokenizer("a", "b")["input_ids"]
    both = first + second
    return any(whole[start : start + len(both)] == both for start in range(len(whole) - len(both) + 1))


def _tokenize(tokenizer: Any, texts: list[list[str]], start: int, options: dict[str, Any]) -> Any:
    try:
        return tokenizer(*texts, **options)
    except Exception as error:  # each tokenizer has its own
        if len(texts[0]) == 1:
            raise TextError(start, one_line(error)) from error
        half = len(texts[0]) // 2
        _tokenize(tokenizer, [column[:half] for column in texts], start, options)
        _tokenize(tokenizer, [column[half:] for column in texts], start + half, options)
        raise


class TokensOnDemand(Tokens):
    """Token ids of texts that are too many to keep those of all: made of each batch as it comes, by the same rules.

    Parameters
    ----------
    tokenizer, texts, max_length
        As of `Tokens`.
    check
        Called with the tokens of a batch and the indices of its texts, once it has been made; it raises what is to be raised.
    """

    def __init__(
        self, tokenizer: Any, texts: pa.ChunkedArray, max_length: int, check: Callable[[Tokens, Sequence[int]], None]
    ) -> None:
        self._tokenizer, self._texts, self._max_length, self._check = tokenizer, texts, max_length, check
        self._ends = ends_of(texts)
        self.lengths = _bytes_of(texts)
        """Bytes of each text, or of both of a pair, int64 of shape (texts,): what is longest in them has most tokens, or nearly."""

    def collate(self, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Return what `Tokens` would; TextError where the tokenizer fails at a text."""
        try:
            found = Tokens(self._tokenizer, few(self._texts, rows, self._ends), self._max_length)
        except TextError as error:
            raise TextError(int(rows[error.row]), str(error)) from error
        self._check(found, [int(row) for row in rows])
        return found.collate(range(len(rows)))


def _bytes_of(texts: pa.ChunkedArray) -> np.ndarray:
    import pyarrow.compute as pc

    columns = texts.flatten() if texts.type.num_fields else [texts]
    return np.sum([pc.binary_length(column).to_numpy().astype(np.int64) for column in columns], axis=0)
