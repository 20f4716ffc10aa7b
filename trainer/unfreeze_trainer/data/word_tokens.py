"""Tokenised texts whose words are known: where in a text's tokens each word begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unfreeze_trainer.data.tokens import Tokens
from unfreeze_trainer.data.words import joined, words_in

if TYPE_CHECKING:
    import pyarrow as pa


class WordTokens(Tokens):
    """Token ids of many texts, and the first token of each word: int32, four bytes for each of both.

    Parameters
    ----------
    tokenizer
        A transformers tokenizer that is fast: it says which characters each token is of.
    texts
        Inputs of `read_words`.
    max_length
        Tokens kept of each text, special ones included.
    spans
        Whether the inputs are texts, and no lists of words.

    Raises
    ------
    TextError
        The tokenizer fails at a text.

    Notes
    -----
    Words of a list become a text, with a space between any two, and its tokens are those of any text: what stands between
    words in the text that the model was pretrained on, as the leading space of a byte-level token, stands there.
    """

    def __init__(self, tokenizer: Any, texts: pa.ChunkedArray, max_length: int, *, spans: bool) -> None:
        self._spans = spans
        self._parts: list[np.ndarray] = []
        super().__init__(tokenizer, texts, max_length)
        self._places = np.concatenate(self._parts)
        self._word_ends = np.cumsum([len(part) for part in self._parts], dtype=np.int64)
        self.seen = np.array([(part >= 0).sum() for part in self._parts], dtype=np.int64)
        """Words of each text that have a token, int64 of shape (texts,)."""
        self.words = np.diff(self._word_ends, prepend=0)
        """Words of each text, int64 of shape (texts,)."""
        del self._parts

    def _tokenized(self, texts: list[list[str]], start: int, **options: Any) -> Any:
        (only,) = texts  # a pair has no words of its own
        found = [(text, words_in(text)) if self._spans else joined(text) for text in only]
        chunk = super()._tokenized([[text for text, _ in found]], start, return_offsets_mapping=True, **options)
        self._parts += [
            first_tokens(offsets, words) for offsets, (_, words) in zip(chunk["offset_mapping"], found, strict=True)
        ]
        return chunk

    def places(self, rows: Sequence[int] | np.ndarray, length: int) -> Tensor:
        """Return where the first token of each word stands, -1 for a word without one; int64 of shape (rows, most words).

        Parameters
        ----------
        rows
            Indices of texts.
        length
            Of the tokens, as `collate` has padded them.
        """
        found = [self._places[int(self._word_ends[row] - self.words[row]) : int(self._word_ends[row])] for row in rows]
        places = np.full((len(found), max(map(len, found))), -1, dtype=np.int64)
        for place, (row, own) in enumerate(zip(rows, found, strict=True)):
            ahead = length - int(self.lengths[row]) if self._pad_left else 0
            places[place, : len(own)] = np.where(own < 0, -1, own + ahead)
        return torch.from_numpy(places)


def first_tokens(offsets: Sequence[tuple[int, int]], words: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the first token that has a character of each word, -1 where there is none; int32 of shape (words,).

    Parameters
    ----------
    offsets
        Characters that each token is of, from the first to the one after the last; special tokens have none.
    words
        The same of each word.
    """
    of_tokens, of_words = (np.asarray(pairs, dtype=np.int64).reshape(-1, 2) for pairs in (offsets, words))
    (tokens,) = np.nonzero(of_tokens[:, 1] > of_tokens[:, 0])
    if not len(tokens):
        return np.full(len(of_words), -1, dtype=np.int32)
    starts, ends = of_tokens[tokens].T
    first = np.searchsorted(ends, of_words[:, 0], side="right")
    within = np.minimum(first, len(tokens) - 1)
    has_one = (first < len(tokens)) & (starts[within] < of_words[:, 1])
    return np.where(has_one, tokens[within], -1).astype(np.int32)
