"""Samples without what is right of them: of what a model is asked, or what its base is looked at with."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_api.tasks import task_type
from unfreeze_api.tasks.base import AUDIO
from unfreeze_api.tasks.captioning import CaptioningSpec
from unfreeze_api.tasks.token_classification import TokenClassificationSpec
from unfreeze_trainer.data.audio import CLIPS, read_audio
from unfreeze_trainer.data.files import tell_left_out
from unfreeze_trainer.data.images import PICTURES, read_images
from unfreeze_trainer.data.samples import DataSource, read_texts
from unfreeze_trainer.data.shards import is_table_folder
from unfreeze_trainer.data.words import read_words, words_in
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.objectives.targets import Encoder, Targets
from unfreeze_trainer.objectives.targets.target_texts import TargetTexts
from unfreeze_trainer.sources.closed import Closed

FEWEST_ANCHORS = 8
"""Rows of an anchor, or of the validation data in its place."""


class Unlabelled(Encoder[None]):
    """Stands for the targets of data that has none: its column is one that is read anyway."""

    @staticmethod
    def columns(names: Any) -> list[str]:
        """Return the column of texts."""
        return [names.text]

    @staticmethod
    def broken(*_: Any) -> Iterator[tuple[list[int], JobError]]:
        """Yield nothing: nobody reads it."""
        yield from ()

    def __init__(self) -> None:
        raise NotImplementedError

    @staticmethod
    def read(*_: Any) -> None:
        """Return nothing."""

    def encode(self, *_: Any) -> Targets:
        """Return no targets: there are none."""
        raise NotImplementedError


class Prompts(TargetTexts):
    """What is asked of each picture or clip."""

    @staticmethod
    def columns(names: Any) -> list[str]:
        """Return the column of prompts."""
        return [names.prompt]


def read_anchor(job: ResolvedJob, read: Callable[[Dataset, str], DataSource]) -> DataSource | None:
    """Return the rows that a job's base is good at; None where it names none.

    Parameters
    ----------
    read
        Reads a source as the job's task does.

    Raises
    ------
    JobError
        InvalidData: it cannot be read.
    """
    dataset = job.data.anchor
    if dataset is None:
        return None
    where = f"spec.evidence.forgetting.anchor.source {dataset.source}"
    return read(dataset, where) if task_type(job.task.type).reads_targets else unlabelled(job, dataset, where)[0]


def check_anchor(anchor: DataSource) -> None:
    """Raise JobError where these are too few rows to look at a base with."""
    if (rows := len(anchor.inputs)) < FEWEST_ANCHORS:
        raise JobError(
            "InvalidData",
            f"{anchor.where}: {rows} rows tell nothing of what a model has lost: give {FEWEST_ANCHORS} or more",
        )


def unlabelled(job: ResolvedJob, dataset: Dataset, where: str) -> tuple[DataSource, np.ndarray | None]:
    """Read a source without regard to what is right, of a task that reads texts, words, pictures or sound.

    Parameters
    ----------
    job
        Its task counts, and whether rows that cannot be read are skipped.
    dataset, where
        What is read, and what messages start with.

    Returns
    -------
    tuple
        The source, and how many words each sample has, where these are what is asked.

    Raises
    ------
    JobError
        InvalidData: it cannot be read.
    """
    skip = job.data.on_error == "Skip"
    columns, task = dataset.columns, task_type(job.task.type)
    if words := job.task.of(TokenClassificationSpec):
        if words.annotation == "Tags":
            # The words stand in for their tags, since there are as many.
            same = dataset.model_copy(update={"columns": columns.model_copy(update={"tags": columns.tokens})})
            source = read_words(same, where, spans=False, skip=skip)
            return source, np.array([len(row) for row in source.targets.to_pylist()], dtype=np.int64)
        source = read_texts(dataset, where, kind=Unlabelled, skip=skip)
        return source, np.array([len(words_in(text)) for text in source.inputs.to_pylist()], dtype=np.int64)
    if task.reads_text:
        return read_texts(dataset, where, kind=Unlabelled, skip=skip), None
    hears = _hears(job)
    read: Callable[..., DataSource] = read_audio if hears else read_images
    captions = job.task.of(CaptioningSpec)
    if captions and captions.annotation == "Answers":
        if Path(dataset.path).is_dir() and not is_table_folder(dataset.path):
            raise JobError(
                "InvalidData",
                f"{where}: a folder of files says nothing of what is asked of each: give a table with the column {columns.prompt!r}, too",
            )
        source = read(dataset, where, kind=Prompts, skip=skip)
        Prompts.read(source.targets, columns.prompt, where)
        return source, None
    column = columns.audio if hears else columns.image
    same = dataset.model_copy(update={"columns": columns.model_copy(update={"text": column})})  # what Unlabelled takes
    if (flat := _flat(same, where, hears=hears)) is not None:
        return flat, None
    return read(same, where, kind=Unlabelled, skip=skip), None


def _hears(job: ResolvedJob) -> bool:
    """Return whether a job's model hears, and does not see."""
    return AUDIO in task_type(job.task.type).reads and "Image" not in (job.model.modalities or ())


def _flat(dataset: Dataset, where: str, *, hears: bool) -> DataSource | None:
    """Return the files of a folder without sub-folders, sorted by name, but for hidden ones; None of anything else. Others are counted in the log.

    JobError InvalidData for one that leads out of it, or is no regular file.
    """
    import pyarrow as pa

    root = Path(dataset.path)
    if (
        not root.is_dir()
        or is_table_folder(dataset.path)
        or any(entry.is_dir() and not entry.name.startswith(".") for entry in root.iterdir())
    ):
        return None
    kind = CLIPS if hears else PICTURES
    closed = Closed(root, where, "InvalidData")
    files, left_out = list[str](), Counter[str]()
    for entry in os.scandir(root):
        suffix = Path(entry.name).suffix.lower()
        if suffix in kind.suffixes and not entry.name.startswith("."):
            files.append(closed.entry(entry, gone=True))  # whoever opens it says so
        elif not entry.is_dir():
            left_out[suffix or "no suffix"] += 1
    if not files:
        ends = ", ".join(sorted(kind.suffixes))
        raise JobError("InvalidData", f"{where}: no {kind.files} lie here; they end in {ends}")
    tell_left_out(where, left_out)
    inputs = pa.chunked_array([pa.array(sorted(files), pa.string())])
    return DataSource(dataset, where, inputs, pa.chunked_array([pa.nulls(len(files), pa.string())]), files=True)
