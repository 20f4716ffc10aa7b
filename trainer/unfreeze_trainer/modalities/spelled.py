"""What an encoder hears that spells (CTC): clips, and the characters of their texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_trainer.data.audio_loader import MASK
from unfreeze_trainer.data.dialogues import without
from unfreeze_trainer.data.samples import DataSource, Split
from unfreeze_trainer.data.sequence_tokens import SequenceTokens
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.modalities.audio import AudioModel
from unfreeze_trainer.modalities.base import rows_of
from unfreeze_trainer.modalities.speech import Transcribed
from unfreeze_trainer.models.ctc import Moments, Spelling, shown

_UNCUT = 1 << 30


class SpellingModel(AudioModel, Protocol):
    """What a library tells of a model that spells what it hears."""

    moments: Moments

    @property
    def spelling(self) -> Spelling:
        """The vocabulary."""

    @property
    def outputs(self) -> int:
        """How many tokens the head tells apart."""

    def learn_spelling(self, texts: Iterable[str]) -> None:
        """Make a vocabulary of the characters of texts, unless there is one."""

    def without_output(self, token: int, what: str) -> JobError:
        """Return the error of a text with a token that the folder's head has no output for."""

    def save_processor(self, folder: Path) -> None:
        """Write the vocabulary, and what joins it to the feature extractor."""


class Spelled(Transcribed):
    """Clips of a table, and their texts as characters.

    Parameters
    ----------
    job
        Its data counts.
    model
        Knows already what it hears. The first texts that are read, those that are trained on, give it a vocabulary if it has none.
    max_seconds
        That were asked for of each clip; None for what the model takes.
    targets, ignored
        What a batch calls the characters that are learned, and what stands where none is.
    """

    def __init__(
        self, job: ResolvedJob, model: SpellingModel, max_seconds: float | None, *, targets: str, ignored: int
    ) -> None:
        super().__init__(job, model, max_seconds)
        self._spells, self._targets, self._ignored = model, targets, ignored

    def read(self, dataset: Dataset, where: str) -> DataSource:
        """Read a table; JobError InvalidData for texts that cannot be learned, unless such rows are skipped."""
        skip, column, model = self._skips, dataset.columns.text, self._spells
        source = self._read_speech(dataset, where)
        model.learn_spelling(text for chunk in source.targets.chunks for text in chunk.to_pylist())
        tokens = SequenceTokens(model.spelling, source.targets, _UNCUT, target=True, remedy="")
        seconds = self._lasting(source)
        wrong = [(row, f", column {column!r}: {why}") for row, why in self._wrong(source, tokens, seconds)]
        source, kept = without(source, wrong, skip=skip)
        tokens.take(kept)
        if found := tokens.first_beyond(model.outputs):
            raise model.without_output(found[1], f"{where}: row {source.number(found[0])}")
        self._texts[source], self._seconds[source] = tokens, seconds[kept]
        return source

    def _wrong(self, source: DataSource, tokens: SequenceTokens, seconds: np.ndarray) -> Iterator[tuple[int, str]]:
        """Yield the rows that cannot be learned, each with why, in order."""
        moments = self._moments(seconds)
        for row in range(len(tokens.lengths)):
            ids = tokens.of(row)
            if not len(ids):
                yield row, "it holds nothing that the vocabulary has; fill it in, or remove the row"
            elif why := self._spells.spelling.wrong(source.targets[row].as_py(), ids.tolist()):
                yield row, why + (self._all_strange(source, tokens) if -1 in ids and not self._skips else "")
            elif seconds[row] and needed(ids) > moments[row]:  # one of 0 cannot be read, and is skipped later
                yield row, _too_long(needed(ids), int(moments[row]))

    def _all_strange(self, source: DataSource, tokens: SequenceTokens) -> str:
        """Return how many texts hold characters that the vocabulary lacks, and all of these, where there are several such texts."""
        rows = [row for row in range(len(tokens.lengths)) if -1 in tokens.of(row)]
        if len(rows) == 1:
            return ""
        found = {one for row in rows for one in self._spells.spelling.strange(source.targets[row].as_py())}
        return f". {len(rows):,} of {len(tokens.lengths):,} texts hold such characters, in all {shown(sorted(found))}"

    def _moments(self, seconds: np.ndarray) -> np.ndarray:
        """Return how many moments the model gives outputs for, of clips that last so long by their headers; int64 of the same shape."""
        hears = self._spells.hears
        values = np.minimum(np.rint(seconds * hears.extractor.sampling_rate), hears.longest).astype(np.int64)
        if spectra := getattr(hears.extractor, "stride", 0):  # it reads so many at once, of a hundred a second
            values = -(-values // (hears.extractor.sampling_rate // 100 * spectra))
        return self._spells.moments(torch.from_numpy(values)).numpy()

    def units(self, split: Split) -> np.ndarray:
        """Return how many characters of each text are learned, int64 of shape (samples,)."""
        return self._texts[split.source].lengths[split.rows]

    def batches(
        self, split: Split, batches: Iterable[Sequence[int]], epoch_seed: int | None, unread: set[int]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with what the feature extractor makes of the clips, a mask of padding, and targets.

        The latter are int64 of shape (samples, characters of the longest text). JobError InvalidData for a clip that turns out too
        short for its text, unless such rows are skipped.
        """
        for indices, heard in super().batches(split, batches, epoch_seed, unread):
            learned = self._learned(split, indices, self._spells.moments(heard[MASK].sum(dim=1)).tolist(), unread)
            yield indices, heard | {self._targets: torch.from_numpy(learned)}

    def _learned(self, split: Split, indices: Sequence[int], moments: Sequence[int], unread: set[int]) -> np.ndarray:
        tokens, rows = self._texts.get(split.source), rows_of(split, indices).tolist()
        texts = [np.empty(0, np.int32) if tokens is None else tokens.of(row) for row in rows]
        found = np.full((max(1, len(texts)), max([1, *map(len, texts)])), self._ignored, dtype=np.int64)
        for place, (index, text) in enumerate(zip(indices, texts, strict=True)):
            if index not in unread and needed(text) > moments[place]:  # its header had said that it is longer
                if not self._skips:
                    name = self.name_of(split.source, rows[place])
                    raise JobError("InvalidData", f"{name}: {_too_long(needed(text), moments[place])}")
                unread.add(index)
            if index not in unread:
                found[place, : len(text)] = text
        return found

    def tokens(self, inputs: Mapping[str, Tensor], counted: Tensor) -> int:
        """Return how many characters the rows learn that count."""
        return int((inputs[self._targets][counted] != self._ignored).sum())

    def save(self, folder: Path) -> None:
        """Write the feature extractor and the vocabulary, and what joins them."""
        super().save(folder)
        self._spells.save_processor(folder)


def needed(ids: np.ndarray) -> int:
    """Return at how many moments a text can be written at least: one for each character, and one between two that are the same."""
    return len(ids) + int((ids[1:] == ids[:-1]).sum())


def _too_long(wanted: int, moments: int) -> str:
    return (
        f"the text needs {wanted} moments (one for each character, and one between two that are the same), and the model has {moments} for"
        " the clip: is it the text of another clip? Correct it, or remove the row"
    )
