"""What an encoder reads, and what a decoder learns to make of it: texts of two columns, tokenised when they are read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_api.tasks.seq_2_seq_lm import Seq2SeqLMSpec
from unfreeze_trainer.data.dialogue_tokens import padded_length
from unfreeze_trainer.data.dialogues import without
from unfreeze_trainer.data.samples import DataSource, Split, target_kind
from unfreeze_trainer.data.sequence_tokens import SequenceTokens
from unfreeze_trainer.data.sequences import read_sequences
from unfreeze_trainer.modalities.base import Modality, Question, rows_of
from unfreeze_trainer.models.export import Example
from unfreeze_trainer.models.text import Limits, require_embedding, usable_length, without_embedding

log = logging.getLogger(__name__)

_COMPARED_TOKENS = 64
"""Of source and target that an export is compared on."""


class EncoderDecoder(Protocol):
    """What a library tells of a model that makes a text of another one."""

    tokenizer: Any

    @property
    def limits(self) -> Limits:
        """What the model takes."""

    @property
    def start(self) -> int:
        """Token that the decoder reads first."""

    @property
    def stops(self) -> list[int]:
        """Tokens at which the model ends what it says."""

    @property
    def least(self) -> int:
        """Tokens of the shortest target that the model can say by its own files."""


@dataclass(frozen=True)
class Names:
    """What a batch calls its parts."""

    targets: str
    """Tokens that are learned."""
    ignored: int
    """What stands beyond the end of those of a sample."""


class Sequences(Modality):
    """Rows of a table as two sequences of tokens.

    Parameters
    ----------
    job
        Its data, model and adapter count.
    model
        Its tokenizer is there already.
    options
        Of the task.
    names
        What a batch calls its parts.
    """

    needs_model = True

    def __init__(self, job: ResolvedJob, model: EncoderDecoder, options: Seq2SeqLMSpec, names: Names) -> None:
        super().__init__(job)
        self._model, self._names = model, names
        self._tokens: dict[DataSource, tuple[SequenceTokens, SequenceTokens]] = {}
        self.tokenizer = model.tokenizer
        prompt = job.adapter.virtual_tokens if job.adapter else 0
        self._wanted = options.max_source_length, options.max_target_length
        source, target = (
            usable_length(wanted, self.tokenizer, model.limits, prompt=before)
            for wanted, before in zip(self._wanted, (prompt, 0), strict=True)
        )
        self.max_lengths = source, target
        """Tokens kept of source and target."""
        for kept, wanted, part in zip(self.max_lengths, self._wanted, _FIELDS, strict=True):
            if kept < wanted:
                log.warning(
                    "%s takes %d tokens of a %s: longer ones are cut there, not at %s.%s %d",
                    self.where,
                    kept,
                    part,
                    self._options,
                    _FIELDS[part],
                    wanted,
                )

    def read(self, dataset: Dataset, where: str) -> DataSource:
        """Read a table and tokenise it; JobError InvalidData where nothing of a row is left, unless such rows are skipped."""
        kind, skip = target_kind(self.job), self._skips
        source = read_sequences(dataset, where, kind=kind, skip=skip)
        columns, texts = (dataset.columns.source, dataset.columns.target), (source.inputs, source.targets)
        both = [
            SequenceTokens(self.tokenizer, cells, most, target=part == "target", remedy=self._longer(part))
            for part, cells, most in zip(_FIELDS, texts, self.max_lengths, strict=True)
        ]
        said: dict[int, str] = {}
        for column, tokens in zip(columns, both, strict=True):
            for row, why in tokens.wrong:
                said.setdefault(row, f", column {column!r}: it {why}")
        source, kept = without(source, sorted(said.items()), skip=skip)
        for tokens in both:
            tokens.take(kept)
        for what in self._lost(*both):
            self.tell(where, what)
        if not both[1].ends(self._model.stops):
            log.warning(
                "%s: its tokenizer ends no target by a token that ends the model's: who generates goes on until the limit",
                self.where,
            )
        self._require_rows(source, both)
        self._tokens[source] = both[0], both[1]
        return source

    def _longer(self, part: str) -> str:
        """Return what to do about texts that are too long."""
        place = part == "target"
        if self.max_lengths[place] < self._wanted[place]:
            return f"shorten them, or choose a model that takes more; {self._options}.{_FIELDS[part]} changes nothing"
        return f"raise {self._options}.{_FIELDS[part]}, or shorten them"

    def _lost(self, sources: SequenceTokens, targets: SequenceTokens) -> Iterator[str]:
        """Yield what of a source is not read, or not learned, as its rows say."""
        if cut := int((sources.beyond > 0).sum()):
            yield (
                f"{cut} of {len(sources.beyond)} sources are cut: they are longer than {self.max_lengths[0]} tokens, and the model does"
                f" not read the rest: {self._longer('source')}"
            )
        if cut := int((targets.beyond > 0).sum()):
            beyond = int(targets.beyond.sum())
            whole = beyond + int(targets.lengths.sum())
            yield (
                f"{cut} of {len(targets.beyond)} targets are cut: they are longer than {self.max_lengths[1]} tokens. {beyond} of {whole}"
                f" tokens that are to be learned lie beyond, and these targets do not teach the model to stop: {self._longer('target')}"
            )
        if short := int((targets.lengths < self._model.least).sum()):
            yield (
                f"{short} of {len(targets.lengths)} targets have fewer than {self._model.least} tokens, and the model says no shorter text by its"
                " generation_config.json: set min_length there to 0, unless others are to be longer than these"
            )
        if twice := targets.twice(self._model.stops):
            yield (
                f"{twice} of {len(targets.lengths)} targets hold a token that ends the model's texts"
                f" ({', '.join(self.tokenizer.convert_ids_to_tokens(self._model.stops))}), and the tokenizer puts one there, too: what follows the"
                " first is learned and never said. Remove it from them"
            )
        for part, tokens, does in (("source", sources, "reads"), ("target", targets, "learns to write")):
            if unknown := tokens.unknown():
                yield (
                    f"{unknown} of {len(tokens.lengths)} {part}s hold characters that the model's tokenizer has no token for: it {does}"
                    f" {self.tokenizer.unk_token} in their place. Write them otherwise, or choose a model that knows them, like ByT5"
                )

    def _require_rows(self, source: DataSource, both: Sequence[SequenceTokens]) -> None:
        rows = self._model.limits.rows
        if rows is None:
            return
        padding = self.tokenizer.pad_token_id
        require_embedding(padding, "the padding token", rows=rows, tokenizer=self.tokenizer, where=self.where)
        for tokens in both:
            if found := tokens.first_beyond(rows):
                what = f"{self.name_of(source, found[0])}: a token"
                raise without_embedding(found[1], what, rows=rows, tokenizer=self.tokenizer, where=self.where)

    def open(self) -> None:
        """Do nothing: the tokenizer was there before the data."""

    @property
    def remedy(self) -> str:
        """What to do about a model that fails at the samples."""
        return (
            f"Look whether {self.where} holds an encoder and a decoder that transformers trains on sources of {self.max_lengths[0]} and"
            f" targets of {self.max_lengths[1]} tokens ({self._options}.maxSourceLength, maxTargetLength), or choose another model"
        )

    def lengths(self, split: Split) -> np.ndarray:
        """Return how many tokens source and target of each sample have together, int64 of shape (samples,)."""
        sources, targets = self._tokens[split.source]
        return (sources.lengths + targets.lengths)[split.rows]

    def units(self, split: Split) -> np.ndarray:
        """Return how many tokens of each sample are learned, int64 of shape (samples,)."""
        return self._tokens[split.source][1].lengths[split.rows]

    def batches(
        self,
        split: Split,
        batches: Iterable[Sequence[int]],
        epoch_seed: int | None,  # noqa: ARG002 - texts are not varied
        unread: set[int],  # noqa: ARG002 - all have been read
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with input_ids and attention_mask of sources, and decoder_input_ids and targets.

        All are int64 of shape (samples, length of the longest, up to the next multiple of 8).
        """
        sources, targets = self._tokens[split.source]
        for indices in batches:
            # Padding has the texts of a sample, of which nothing is learned.
            rows = rows_of(split, indices) if len(indices) else split.rows[:1]
            read, mask = self._padded([sources.of(int(row)) for row in rows], self.max_lengths[0])
            learned, counts = self._padded([targets.of(int(row)) for row in rows], self.max_lengths[1])
            before = np.roll(learned, 1, axis=1)  # its last place is of padding, or of a token that nothing comes after
            before[:, 0] = self._model.start
            learned[(counts == 0) | (len(indices) == 0)] = self._names.ignored
            found = {
                "input_ids": read,
                "attention_mask": mask,
                "decoder_input_ids": before,
                self._names.targets: learned,
            }
            yield indices, {name: torch.from_numpy(values) for name, values in found.items()}

    def _padded(self, samples: Sequence[np.ndarray], most: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ids, padded at their end, and which of them are no padding; both int64 of shape (samples, length)."""
        shape = len(samples), padded_length([len(ids) for ids in samples], most)
        found = np.full(shape, self.tokenizer.pad_token_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        for row, ids in enumerate(samples):
            found[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        return found, mask

    def remembered(
        self, split: Split, batches: Iterable[Sequence[int]]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with its inputs, which all lie in memory."""
        return self.batches(split, batches, None, set())

    def tokens(self, inputs: Mapping[str, Tensor], counted: Tensor) -> int:
        """Return how many tokens that are not padding the rows have that count, of sources and targets."""
        learned = inputs[self._names.targets] != self._names.ignored
        return int(inputs["attention_mask"][counted].sum()) + int(learned[counted].sum())

    def asked(self, split: Split, index: int) -> Question:
        """Return the tokens of a sample's source, and its whole target."""
        row = int(split.rows[index])
        ids = self._tokens[split.source][0].of(row).tolist()
        return Question(
            {"input_ids": ids, "attention_mask": [1] * len(ids)},
            split.source.targets[row].as_py(),
            None if self._model.limits.positions is None else self._model.limits.positions - 1,
            self._decode,
            tokenizer=self.tokenizer,
        )

    def _decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def samples(self, split: Split, count: int, inputs: Mapping[str, Tensor]) -> list[tuple[list[int], list[int]]]:  # noqa: ARG002
        """Return the ids that sources, and what the decoder reads, of the first samples begin with."""
        sources, targets = self._tokens[split.source]
        return [
            (
                sources.of(int(row))[:_COMPARED_TOKENS].tolist(),
                [self._model.start, *targets.of(int(row))[: _COMPARED_TOKENS - 1].tolist()],
            )
            for row in split.rows[:count]
        ]

    @property
    def example(self) -> Example:
        """An input that people are shown."""
        return Example('"some text"')

    def save(self, folder: Path) -> None:
        """Write the tokenizer."""
        self.tokenizer.save_pretrained(folder)


_FIELDS = {"source": "maxSourceLength", "target": "maxTargetLength"}
"""Options of the task by what they are about."""
