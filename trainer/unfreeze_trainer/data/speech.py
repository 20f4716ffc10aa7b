"""Clips with what is said in them: a table of paths, or of the files' content, and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from unfreeze_api.contracts.resolved import Dataset
from unfreeze_trainer.data.audio import read_audio
from unfreeze_trainer.data.few import numbers_of
from unfreeze_trainer.data.samples import DataSource, read_targets
from unfreeze_trainer.data.shards import is_table_folder
from unfreeze_trainer.data.suffixes import lies_as_table
from unfreeze_trainer.errors import JobError, some_of


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
            f" {dataset.columns.audio!r}, paths relative to it, and {dataset.columns.text!r} (docs/conversions.md){there}",
        )
    source = read_audio(dataset, where, kind=kind, **options)
    read_targets(source, kind)
    return source


def said_of_shared(source: DataSource) -> str:
    """Return what is said of files that stand in several rows with different texts, for people; empty where none does."""
    if not source.files:  # a table that holds the clips has each part by itself
        return ""
    clips, texts = numbers_of(source.inputs), numbers_of(source.targets)
    owners, counts = np.unique(np.unique(np.stack([clips, texts], axis=1), axis=0)[:, 0], return_counts=True)
    rows = int(np.isin(clips, owners[counts > 1]).sum())
    if not rows:
        return ""
    return (
        f"{rows} of {len(clips)} rows share their clip with a row of another text, and each is heard from the clip's beginning: where rows"
        " are parts of recordings (offset and duration of NeMo's manifests, segments of Kaldi) cut these into a clip for each row"
    )
