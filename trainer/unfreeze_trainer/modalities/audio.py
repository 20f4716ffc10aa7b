"""Audio: decoded in threads as it is needed, one channel at the model's rate, cut to what it takes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_trainer.data.audio import clip_name, read_audio, read_seconds
from unfreeze_trainer.data.audio_loader import AudioLoader
from unfreeze_trainer.data.samples import DataSource, Split, target_kind
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.modalities.base import rows_of
from unfreeze_trainer.modalities.files import Files
from unfreeze_trainer.models.audio import AudioInput
from unfreeze_trainer.models.export import Example

log = logging.getLogger(__name__)
_LOUD = 128.0
"""Where 1 is as loud as sound can be: 42 dB above it, which no mix of sounds is."""


class AudioModel(Protocol):
    """What a library tells of a model that reads audio."""

    hears: AudioInput

    @property
    def pads_all(self) -> bool:
        """Whether all clips are made as long as the model takes, which it can be made to take less of, and nobody has said how long."""

    def shortened(self, longest: float) -> int | None:
        """Have the model take as many whole seconds as the longest clip lasts; return them, None where it takes no more anyway."""


class Audio(Files):
    """Clips of a folder or a table.

    Parameters
    ----------
    job
        Its data counts.
    model
        Asked once it is open.
    max_seconds
        That were asked for of each clip; None for what the model takes.
    """

    loader: AudioLoader
    loads: type[AudioLoader] = AudioLoader
    """What reads the clips."""

    def __init__(self, job: ResolvedJob, model: AudioModel, max_seconds: float | None) -> None:
        super().__init__(job)
        self._model, self._wanted = model, max_seconds
        self._seconds: dict[DataSource, np.ndarray] = {}

    def longest(self, split: Split) -> float:
        """Return how many seconds the longest clip of a split's source lasts."""
        return float(self._lasting(split.source).max())

    def keep(self, seconds: int) -> None:
        """Keep so many seconds of each clip, as the longest one lasts."""
        self._wanted = self.made_to_hear = seconds

    def shortened(self, job: ResolvedJob, train: Split) -> ResolvedJob:
        """Have a model that makes all clips alike hear as much as the longest training clip lasts; return the job that says so.

        It is the same job where somebody has said how long, or the model takes no more anyway.
        """
        if job.semantics.clips != "OfData" or not self._model.pads_all:
            return job
        seconds = self._model.shortened(self.longest(train))
        if seconds is None:
            return job
        self.keep(seconds)
        field = job.task.kind.field
        options = getattr(job.task, field).model_copy(update={"max_seconds": float(seconds)})
        return job.model_copy(update={"task": job.task.model_copy(update={field: options})})

    def read(self, dataset: Dataset, where: str) -> DataSource:
        """Read a folder with one sub-folder per label, or a table."""
        return read_audio(dataset, where, kind=target_kind(self.job), skip=self._skips)

    def open(self) -> None:
        """Find out what the model hears."""
        self._hears = hears = self._model.hears
        self.loader = self.loads(hears.extractor, shortest=hears.shortest, longest=hears.longest, padded=hears.padded)
        self.max_seconds = hears.longest / self.loader.rate
        if self._wanted and hears.own is not None and self._wanted > hears.own:
            log.warning(
                "%s takes %g seconds of a clip: longer ones are cut there, not at %s.maxSeconds %g",
                self.where,
                hears.own,
                self._options,
                self._wanted,
            )

    def check(self, splits: Mapping[str, Split], rank: int, world_size: int) -> None:
        """Read this rank's share of the clips, for READ_SECONDS at most, and say how many are cut."""
        super().check(splits, rank, world_size)
        if self.loader.loudest > _LOUD:
            said = (
                f"clips hold values up to {self.loader.loudest:.3g}, and sound lies between -1 and 1: whole numbers were written as floats."
                " What models hear depends on it, of Whisper and AST: divide them by 32768, or by what stands for 1 in them"
            )
            self.tell(splits["train"].source.where, said)
        if rank == 0 and self.made_to_hear:
            log.info(
                "%s is made to hear %d seconds of each clip, as long as the longest one of the training data: set"
                " %s.maxSeconds if it is to hear longer ones later",
                self.where,
                self.made_to_hear,
                self._options,
            )
        for source in dict.fromkeys(split.source for split in splits.values()):
            if rank == 0 and (cut := int((self._lasting(source) > self.max_seconds).sum())):
                self._tell_cut(source, cut)

    def heard_in_part(self, split: Split) -> str:
        """Return how many clips of a split are longer than what the model hears, for people; empty where none is."""
        count = int((self._lasting(split.source)[split.rows] > self.max_seconds).sum())
        return f"{count} of {len(split)} clips are longer than {self.max_seconds:g} seconds" if count else ""

    def _tell_cut(self, source: DataSource, cut: int) -> None:
        """Say how many clips of a source are cut."""
        log.info(
            "%s: %d of %d clips are longer than %g seconds and are cut there (%s.maxSeconds)",
            source.where,
            cut,
            len(source.inputs),
            self.max_seconds,
            self._options,
        )

    def _lasting(self, source: DataSource) -> np.ndarray:
        if source not in self._seconds:
            self._seconds[source] = read_seconds(source, skip=self._skips)
        return self._seconds[source]

    def name_of(self, source: DataSource, row: int) -> str:
        """Return what a JobError's message calls a sample: source, and file or row."""
        return clip_name(source, row)

    @property
    def remedy(self) -> str:
        """What to do about a model that fails at the samples."""
        return (
            f"Clips of up to {self.max_seconds:g} seconds reach it: set {self._options}.maxSeconds to less, or choose"
            " another model"
        )

    def lengths(self, split: Split) -> np.ndarray:
        """Return how many values of each clip the model hears, int64 of shape (samples,); 0 where all are made alike."""
        if self._hears.padded is None:
            return super().lengths(split)
        seconds = np.minimum(self._lasting(split.source)[split.rows], self.max_seconds)
        return np.rint(seconds * self.loader.rate).astype(np.int64)

    def batches(
        self, split: Split, batches: Iterable[Sequence[int]], epoch_seed: int | None, unread: set[int]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with what the model's feature extractor makes of the clips, and a mask of padding."""
        rows = ((indices, rows_of(split, indices)) for indices in batches)
        yield from self.loader.batches(split.source, rows, epoch_seed, unread if self._skips else None)

    def samples(self, split: Split, count: int, inputs: Mapping[str, Tensor]) -> list[Tensor]:  # noqa: ARG002 - its own extractor makes them
        """Return the first clips at the model's rate, float32 of shape (values,) each; those that are skipped as the batch has them."""
        return [torch.from_numpy(self._opened(split.source, int(row))) for row in split.rows[:count]]

    def _opened(self, source: DataSource, row: int) -> np.ndarray:
        try:
            return self.loader.open(source, row)
        except JobError:
            if not self._skips:
                raise
            return self.loader.silence

    @property
    def example(self) -> Example:
        """An input that people are shown."""
        return Example(
            "wave",
            "import soundfile\nimport soxr",
            'sound, rate = soundfile.read("clip.wav", dtype="float32", always_2d=True)\n'
            f"wave = soxr.resample(sound.mean(axis=1), rate, {self.loader.rate})[:{self._hears.longest}]\n",
        )

    def save(self, folder: Path) -> None:
        """Write the feature extractor."""
        self._hears.extractor.save_pretrained(folder)
