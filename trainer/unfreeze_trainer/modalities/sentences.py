"""Texts that become a vector each: those of a sample stand in a batch one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_trainer.data.samples import DataSource, Split, target_kind
from unfreeze_trainer.data.sentences import read_sentences
from unfreeze_trainer.data.tokens import Tokens
from unfreeze_trainer.modalities.base import rows_of
from unfreeze_trainer.modalities.text import Text, TextModel
from unfreeze_trainer.models.export import Example


class Sentences(Text):
    """Texts of one or more columns, all with the same model.

    Parameters
    ----------
    job, model, max_length
        As of Text.
    annotation
        What a table says of its texts, in the API's word.
    """

    def __init__(self, job: ResolvedJob, model: TextModel, max_length: int, *, annotation: str) -> None:
        super().__init__(job, model, max_length)
        self._annotation, self._pairs = annotation, False

    def read(self, dataset: Dataset, where: str) -> DataSource:
        """Read a table; JobError InvalidData where a text is missing or empty, unless such rows are skipped."""
        own = self.job.data.train
        return read_sentences(
            dataset, where, train=own, annotation=self._annotation, kind=target_kind(self.job), skip=self._skips
        )

    def name_of(self, source: DataSource, row: int) -> str:
        """Return what a JobError's message calls a sample: source and row."""
        return super().name_of(source, row % len(source.inputs))

    def lengths(self, split: Split) -> np.ndarray:
        """Return how many tokens the longest text of each sample has, int64 of shape (samples,)."""
        lengths = self._tokenized(split.source).lengths.reshape(-1, len(split.source.inputs))
        longest: np.ndarray = lengths.max(axis=0)[split.rows]
        return longest

    def batches(
        self,
        split: Split,
        batches: Iterable[Sequence[int]],
        epoch_seed: int | None,  # noqa: ARG002 - texts are not varied
        unread: set[int],  # noqa: ARG002 - all have been read
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with input_ids and attention_mask of the first texts of all samples, then their second ones."""
        tokens, count = self._tokenized(split.source), len(split.source.inputs)
        for indices in batches:
            rows = rows_of(split, indices) if len(indices) else split.rows[:1]
            yield indices, tokens.collate(_all_texts(rows, count, _texts_of(split.source)))

    def _tokenize(self, source: DataSource) -> Tokens:
        import pyarrow as pa

        parts = source.inputs.flatten() if _texts_of(source) > 1 else [source.inputs]
        texts = pa.chunked_array([chunk.cast(pa.large_string()) for part in parts for chunk in part.chunks])
        return Tokens(self.tokenizer, texts, self.max_length)

    def tokens(self, inputs: Mapping[str, Tensor], counted: Tensor) -> int:
        """Return how many tokens that are not padding the texts of the samples have that count."""
        mask = inputs["attention_mask"]
        return int(mask.view(-1, len(counted), mask.shape[1])[:, counted].sum())

    def samples(self, split: Split, count: int, inputs: Mapping[str, Tensor]) -> list[str]:  # noqa: ARG002 - its own tokenizer makes them
        """Return the texts of the first samples, in the order of a batch."""
        rows = split.source.inputs.take(split.rows[:count])
        parts = rows.flatten() if _texts_of(split.source) > 1 else [rows]
        return [text for part in parts for text in part.to_pylist()]

    @property
    def example(self) -> Example:
        """An input that people are shown."""
        return Example('["some text", "another text"]')


def _texts_of(source: DataSource) -> int:
    """Return how many texts a sample has."""
    return max(1, source.inputs.type.num_fields)


def _all_texts(rows: np.ndarray, count: int, texts: int) -> np.ndarray:
    """Return the places of samples' texts among all of a source, which has `count` samples: first ones, then second ones."""
    places: np.ndarray = (np.arange(texts)[:, None] * count + rows).ravel()
    return places
