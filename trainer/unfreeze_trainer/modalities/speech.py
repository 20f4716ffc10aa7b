"""What Whisper hears, and what its decoder learns to write of it: clips, and texts that are tokenised when they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_trainer.data.dialogue_tokens import padded_length
from unfreeze_trainer.data.dialogues import without
from unfreeze_trainer.data.samples import DataSource, Split, target_kind
from unfreeze_trainer.data.sequence_tokens import SequenceTokens
from unfreeze_trainer.data.speech import read_speech, said_of_shared
from unfreeze_trainer.data.speech_loader import SpeechLoader
from unfreeze_trainer.errors import JobError, quoted
from unfreeze_trainer.modalities.audio import Audio, AudioModel
from unfreeze_trainer.modalities.base import Question, rows_of
from unfreeze_trainer.models.speech import Prompt, suppressed_tokens
from unfreeze_trainer.models.text import without_embedding

FEATURES, READ = "input_features", "decoder_input_ids"
_UNCUT = 1 << 30
_COMPARED_TOKENS = 64
"""Of a text that an export is compared on, with what stands before it."""


class SpeechModel(AudioModel, Protocol):
    """What a library tells of a model that writes what it hears."""

    tokenizer: Any
    prompt: Prompt
    places: int
    rows: int
    path: str

    @property
    def stops(self) -> list[int]:
        """Tokens at which the model ends what it says."""


class Transcribed(Audio):
    """Clips of a table, and their texts. Parameters as of Audio."""

    needs_model = True
    loads = SpeechLoader

    def __init__(self, job: ResolvedJob, model: AudioModel, max_seconds: float | None) -> None:
        super().__init__(job, model, max_seconds)
        self._texts: dict[DataSource, SequenceTokens] = {}

    def open(self) -> None:
        """Find out what the model hears; clips that are asked of without texts may be silent."""
        super().open()
        assert isinstance(self.loader, SpeechLoader)
        self.loader.of_texts = bool(self._texts)

    def _read_speech(self, dataset: Dataset, where: str) -> DataSource:
        """Read a table; say which rows have one clip and different texts."""
        source = read_speech(dataset, where, kind=target_kind(self.job), skip=self._skips)
        if said := said_of_shared(source):
            self.tell(where, said)
        return source

    def _tell_cut(self, source: DataSource, cut: int) -> None:
        said = (
            f"{cut} of {len(source.inputs)} clips are longer than {self.max_seconds:g} seconds and are cut there ({self._options}.maxSeconds),"
            " and their texts are not: the model learns to write what it does not hear. Cut such clips with their texts"
        )
        self.tell(source.where, said)


class Speech(Transcribed):
    """Clips of a table, and their texts as tokens.

    Parameters
    ----------
    job
        Its data counts.
    model
        Its tokenizer is there already; asked for what it hears once it is open.
    max_seconds
        That were asked for of each clip; None for what the model takes.
    targets, ignored
        What a batch calls the tokens that are learned, and what stands where none is.
    """

    def __init__(
        self, job: ResolvedJob, model: SpeechModel, max_seconds: float | None, *, targets: str, ignored: int
    ) -> None:
        super().__init__(job, model, max_seconds)
        self._writes, self._targets, self._ignored = model, targets, ignored
        self._prompt, self._end = list(model.prompt.tokens), model.stops[0]
        self.most_tokens = model.places - len(self._prompt)
        """Tokens of a text that the decoder has places for."""
        # Transcripts begin with a blank, as those did that Whisper was pretrained on.
        self._tokenizer = partial(_with_blank, model.tokenizer)

    def read(self, dataset: Dataset, where: str) -> DataSource:
        """Read a table and tokenise its texts; JobError InvalidData for those that cannot be learned, unless such rows are skipped."""
        skip, column = self._skips, dataset.columns.text
        source = self._read_speech(dataset, where)
        tokens = SequenceTokens(self._tokenizer, source.targets, _UNCUT, target=True, remedy="")
        source, kept = without(
            source, [(row, f", column {column!r}: {why}") for row, why in self._wrong(tokens)], skip=skip
        )
        tokens.take(kept)
        if found := tokens.first_beyond(self._writes.rows):
            what = f"{where}: row {source.number(found[0])}: a token"
            options = {"rows": self._writes.rows, "tokenizer": self._writes.tokenizer, "where": self.where}
            raise without_embedding(found[1], what, **options)
        self._tell_suppressed(where, tokens)
        self._texts[source] = tokens
        return source

    def _wrong(self, tokens: SequenceTokens) -> Iterator[tuple[int, str]]:
        """Yield the rows that cannot be learned, each with why, in order."""
        special = {
            *self._writes.tokenizer.all_special_ids,
            *self._writes.tokenizer.added_tokens_decoder,
        }  # time stamps, too
        for row, length in enumerate(tokens.lengths.tolist()):
            ids = tokens.of(row).tolist()
            if not length:
                yield row, "it holds nothing that the model's tokenizer makes a token of; fill it in, or remove the row"
            elif strange := special.intersection(ids):
                name = self._writes.tokenizer.convert_ids_to_tokens(min(strange))
                yield row, f"it holds the special token {quoted(name)}, which the model takes for a command: remove it"
            elif length > self.most_tokens:
                why = f"it has {length} tokens, and the model's decoder has places for {self.most_tokens}"
                yield row, f"{why}: cut clip and text into shorter ones, or remove the row"

    def _tell_suppressed(self, where: str, tokens: SequenceTokens) -> None:
        never = np.array(suppressed_tokens(self._writes.path, self.where), dtype=np.int64)
        rows = (
            sum(bool(np.isin(tokens.of(row), never).any()) for row in range(len(tokens.lengths))) if len(never) else 0
        )
        if rows:
            said = (
                f"{rows} of {len(tokens.lengths)} texts hold tokens that the model does not say when it generates (suppress_tokens of its"
                " generation_config.json: mostly punctuation marks): they are learned, and never written"
            )
            self.tell(where, said)

    def lengths(self, split: Split) -> np.ndarray:
        """Return how many tokens of each text are learned, int64 of shape (samples,): clips are all made alike."""
        return self.units(split)

    def units(self, split: Split) -> np.ndarray:
        """Return how many tokens of each text are learned, with the one that ends it, int64 of shape (samples,)."""
        return self._texts[split.source].lengths[split.rows] + 1

    def batches(
        self, split: Split, batches: Iterable[Sequence[int]], epoch_seed: int | None, unread: set[int]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with input_features, decoder_input_ids and targets.

        The latter are int64 of shape (samples, length of the longest with what stands before it, up to the next multiple of 8).
        """
        for indices, heard in super().batches(split, batches, epoch_seed, unread):
            yield indices, heard | self._written(split, indices, unread)

    def remembered(
        self, split: Split, batches: Iterable[Sequence[int]]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with what lies in memory: all but the clips."""
        yield from ((indices, self._written(split, indices, set())) for indices in batches)

    def _written(self, split: Split, indices: Sequence[int], unread: set[int]) -> dict[str, Tensor]:
        """Return what the decoder reads of some samples, and what it learns to write."""
        tokens, before = self._texts[split.source], len(self._prompt) - 1
        # Padding has the text of a sample, of which nothing is learned.
        texts = [tokens.of(int(row)) for row in (rows_of(split, indices) if len(indices) else split.rows[:1])]
        shape = len(texts), padded_length([len(text) + before + 1 for text in texts], self._writes.places)
        read = np.full(shape, self._writes.tokenizer.pad_token_id, dtype=np.int64)
        learned = np.full(shape, self._ignored, dtype=np.int64)
        for place, text in enumerate(texts):
            read[place, : before + 1] = self._prompt
            read[place, before + 1 : before + 1 + len(text)] = text
            if len(indices) and indices[place] not in unread:
                learned[place, before : before + len(text)] = text
                learned[place, before + len(text)] = self._end
        return {READ: torch.from_numpy(read), self._targets: torch.from_numpy(learned)}

    def tokens(self, inputs: Any, counted: Tensor) -> int:
        """Return how many tokens the rows learn that count."""
        return int((inputs[self._targets][counted] != self._ignored).sum())

    def asked(self, split: Split, index: int) -> Question:
        """Return what the model hears of a sample's clip, and its text."""
        row = int(split.rows[index])
        right, readable = split.source.targets[row].as_py(), True
        try:
            opened = self.loader.open(split.source, row)
        except JobError:
            if not self._skips:
                raise
            opened, readable = self.loader.silence, False
        heard = self.loader.prepare(opened, index, None)
        return Question(
            {FEATURES: heard[FEATURES]},
            right,
            self.most_tokens,
            self._decode,
            readable=readable,
            tokenizer=self._writes.tokenizer,
        )

    def _decode(self, ids: list[int]) -> str:
        text: str = self._writes.tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def samples(self, split: Split, count: int, inputs: Any) -> list[tuple[Tensor, list[int]]]:  # type: ignore[override]
        """Return the first clips at the model's rate, float32 of shape (values,), each with the ids that the decoder begins to read."""
        waves, tokens = super().samples(split, count, inputs), self._texts[split.source]
        return [
            (wave, [*self._prompt, *tokens.of(int(row)).tolist()][:_COMPARED_TOKENS])
            for wave, row in zip(waves, split.rows[:count], strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write the feature extractor and the tokenizer, and what joins them."""
        from transformers import WhisperProcessor

        super().save(folder)
        WhisperProcessor(self._hears.extractor, self._writes.tokenizer).save_pretrained(folder)


def _with_blank(tokenizer: Any, text_target: Sequence[str], **options: Any) -> Any:
    """Tokenise texts, each with a blank before it, without special tokens around them."""
    texts = [f" {text.strip()}" if text.strip() else "" for text in text_target]
    return tokenizer(text_target=texts, add_special_tokens=False, **options)
