"""Texts of which each word counts: tokenised, with the place of each word among the tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_trainer.data.samples import DataSource, Split
from unfreeze_trainer.data.word_tokens import WordTokens
from unfreeze_trainer.data.words import joined, read_words, words_in
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.modalities.base import rows_of
from unfreeze_trainer.modalities.text import Text, TextModel

if TYPE_CHECKING:
    import pyarrow as pa


class Words(Text):
    """Texts of a table, and their words.

    Parameters
    ----------
    job, model, max_length
        As of Text.
    spans
        Whether the table has texts with spans, and no lists of words.
    places
        What a batch calls the places of words.
    """

    def __init__(self, job: ResolvedJob, model: TextModel, max_length: int, *, spans: bool, places: str) -> None:
        super().__init__(job, model, max_length)
        self._spans, self._places = spans, places

    def read(self, dataset: Dataset, where: str) -> DataSource:
        """Read a table; JobError InvalidData where words and tags do not belong together, unless such rows are skipped."""
        return read_words(dataset, where, spans=self._spans, skip=self._skips)

    def open(self) -> None:
        """Find out how long texts may be; JobError InvalidModel where the tokenizer does not say what its tokens are of."""
        super().open()
        if not self.tokenizer.is_fast:
            raise JobError(
                "InvalidModel",
                f"{self.where}: {type(self.tokenizer).__name__} is a slow tokenizer, which does not say of which word a token is:"
                " choose a model whose tokenizer is a fast one, with a tokenizer.json",
            )

    def batches(
        self, split: Split, batches: Iterable[Sequence[int]], epoch_seed: int | None, unread: set[int]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with what Text yields and the places of words, int64 of shape (samples, words)."""
        tokens = self._tokenized(split.source)
        for indices, inputs in super().batches(split, batches, epoch_seed, unread):
            length = inputs["input_ids"].shape[1]
            no_words = torch.full((1, 1), -1)
            places = tokens.places(rows_of(split, indices), length) if len(indices) else no_words
            yield indices, inputs | {self._places: places}

    def shown(self, source: DataSource, rows: np.ndarray, count: np.ndarray) -> dict[str, pa.Array]:  # noqa: ARG002
        """Return `text`, each word of some samples."""
        import pyarrow as pa

        found: list[str] = []
        for cell in source.inputs.take(pa.array(rows)).to_pylist():
            found += [cell[start:end] for start, end in words_in(cell)] if self._spans else json.loads(cell)
        return {"text": pa.array(found, pa.large_string())}

    def seen(self, split: Split) -> np.ndarray:
        """Return how many words of each sample the model sees, int64 of shape (samples,)."""
        return self._tokenized(split.source).seen[split.rows]

    def words(self, split: Split) -> np.ndarray:
        """Return how many words each sample has, int64 of shape (samples,)."""
        return self._tokenized(split.source).words[split.rows]

    def _tokenize(self, source: DataSource) -> WordTokens:
        return WordTokens(self.tokenizer, source.inputs, self.max_length, spans=self._spans)

    def _tokenized(self, source: DataSource) -> WordTokens:
        tokens = super()._tokenized(source)
        assert isinstance(tokens, WordTokens)
        return tokens

    def samples(self, split: Split, count: int, inputs: Any) -> list[str]:
        """Return the texts of the first samples."""
        given = list(super().samples(split, count, inputs))  # no pairs: these have no words of their own
        return given if self._spans else [joined(words)[0] for words in given]
