"""Clips with what is said in them: a table of paths, or of the files' content, and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from unfreeze_api.contracts.resolved import Dataset
from unfreeze_trainer.data.audio import read_audio
from unfreeze_trainer.data.audio_loader import AudioLoader
from unfreeze_trainer.data.clips import ClipError
from unfreeze_trainer.data.samples import DataSource, read_targets
from unfreeze_trainer.data.shards import is_table_folder
from unfreeze_trainer.data.suffixes import lies_as_table
from unfreeze_trainer.errors import JobError, some_of

_SILENT = 2.0**-15
"""Of values between -1 and 1: what a step of 16 bits is."""


def read_speech(dataset: Dataset, where: str, *, kind: Any, **options: Any) -> DataSource:
    """Read a table, or its first rows: inputs are clips, targets what is said in them.

    Parameters
    ----------
    dataset, where
        The table, and what messages start with.
    kind
        Of the targets.
    options
        As of `read_audio`.

    Raises
    ------
    JobError
        InvalidData: it is a folder without texts; a clip or a text is missing or cannot be read.
    """
    if Path(dataset.path).is_dir() and not is_table_folder(dataset.path):
        tables = sorted(file.name for file in Path(dataset.path).iterdir() if lies_as_table(file.name))
        there = f". {some_of(tables)} {'lies' if len(tables) == 1 else 'lie'} in it: name one" if tables else ""
        raise JobError(
            "InvalidData",
            f"{where}: a folder of audio files says nothing of what is said in them: give a table with the columns"
            f" {dataset.columns.audio!r}, paths relative to it, and {dataset.columns.text!r}{there}",
        )
    source = read_audio(dataset, where, kind=kind, **options)
    read_targets(source, kind)
    return source


class SpeechLoader(AudioLoader):
    """Makes batches of clips in which something is said."""

    of_texts = True
    """Whether clips have texts: others may be silent."""

    def decode(self, content: str | bytes) -> np.ndarray:
        """Return a clip at the model's rate, float32 of shape (values,); ClipError if it cannot be read, or is silent."""
        values = super().decode(content)
        if self.of_texts and float(np.abs(values).max()) < _SILENT:
            seconds = len(values) / self.rate
            raise ClipError(f"its {seconds:.3g} seconds are silent, and it has a text; replace or remove it")
        return values
