"""The data that a finished model is asked of, with what is right and without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_api.tasks import task_type
from unfreeze_api.tasks.base import AUDIO
from unfreeze_api.tasks.token_classification import TokenClassificationSpec
from unfreeze_trainer.commands.finished import Finished
from unfreeze_trainer.commands.look import reader_of
from unfreeze_trainer.data.samples import DataSource, Split, read_targets, target_kind
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError, quoted, some_rows
from unfreeze_trainer.modalities.base import Modality
from unfreeze_trainer.objectives.targets import Encoder, Targets
from unfreeze_trainer.objectives.targets.labels import SHOWN


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


def _where(job: ResolvedJob) -> str:
    return job.data.train.path


def labelled_data(job: ResolvedJob, finished: Finished, modality: Modality) -> tuple[Encoder[Any], Split]:
    """Return data with what is right of each sample; the modality reads them where that needs the model."""
    kind, skip = target_kind(job), job.data.on_error == "Skip"
    read = modality.read if modality.needs_model else partial(reader_of(job), skip=skip)
    source = read(job.data.train, _where(job))
    learned = _learned(job, finished)
    if skip:
        source = _without(source, learned.strange(read_targets(source, kind)), learned)
    targets = learned.encode(read_targets(source, kind), source.where, source.numbers)
    return learned, Split(source, np.arange(len(targets)), targets)


def _without(source: DataSource, rows: np.ndarray, learned: Encoder[Any]) -> DataSource:
    """Return a source without rows whose labels the model does not have; JobError InvalidData where they are more than half."""
    import pyarrow as pa

    if not rows.size:
        return source
    numbers = np.arange(len(source.inputs)) if source.numbers is None else source.numbers
    total, unread = len(numbers) + source.left_out, Unread(source.where, skip=True)
    known = ", ".join(learned.labels[:SHOWN])
    unread.add(
        numbers[rows].tolist(),
        JobError(
            "InvalidData",
            f"{source.where}: {some_rows(numbers[rows].tolist())}: a label that the model does not have, which has {quoted(known)}",
        ),
    )
    unread.check(total)
    kept = np.setdiff1d(np.arange(len(numbers)), rows)
    inputs, targets = (cells.take(pa.array(kept)) for cells in (source.inputs, source.targets))
    return replace(source, inputs=inputs, targets=targets, numbers=numbers[kept], left_out=source.left_out + len(rows))


def unlabelled_data(job: ResolvedJob, finished: Finished) -> tuple[Encoder[Any], Split]:
    """Return data alone."""
    source, lengths = _inputs(job)
    learned, count = _learned(job, finished), len(source.inputs)
    values: np.ndarray
    if lengths is not None:
        values = np.empty(count, dtype=object)
        values[:] = [np.zeros(length, dtype=np.int32) for length in lengths]
    elif not learned.labels:
        values = np.zeros((count, len(finished.described.outputs)))
    else:
        values = np.full((count, 1), -1) if target_kind(job).cells == "Lists" else np.zeros(count, dtype=np.int64)
    units = np.ones(count, dtype=np.int64) if lengths is None else lengths
    return learned, Split(source, np.arange(count), Targets(values, units, np.zeros(count, dtype=np.int64)))


def _inputs(job: ResolvedJob) -> tuple[DataSource, np.ndarray | None]:
    """Return a source without regard to what is right, and how many words each sample has, where these are what is asked."""
    from unfreeze_trainer.data.samples import read_texts
    from unfreeze_trainer.data.words import read_words, words_in

    dataset, where, skip = job.data.train, _where(job), job.data.on_error == "Skip"
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
    column = columns.audio if AUDIO in task.reads else columns.image
    same = dataset.model_copy(update={"columns": columns.model_copy(update={"label": column})})
    if (flat := _flat(job, same)) is not None:
        return flat, None
    return reader_of(job)(same, where, kind=Unlabelled, skip=skip), None


def _flat(job: ResolvedJob, dataset: Dataset) -> DataSource | None:
    """Return the files of a folder without sub-folders, sorted by name; None of anything else."""
    import pyarrow as pa

    from unfreeze_trainer.data.audio import CLIPS
    from unfreeze_trainer.data.images import PICTURES
    from unfreeze_trainer.data.shards import is_table_folder

    root = Path(dataset.path)
    if (
        not root.is_dir()
        or is_table_folder(dataset.path)
        or any(entry.is_dir() and not entry.name.startswith(".") for entry in root.iterdir())
    ):
        return None
    kind = CLIPS if AUDIO in task_type(job.task.type).reads else PICTURES
    files = sorted(str(file) for file in root.iterdir() if file.suffix.lower() in kind.suffixes)
    if not files:
        ends = ", ".join(sorted(kind.suffixes))
        raise JobError("InvalidData", f"{root}: no {kind.files} lie here; they end in {ends}")
    inputs = pa.chunked_array([pa.array(files, pa.string())])
    return DataSource(dataset, _where(job), inputs, pa.chunked_array([pa.nulls(len(files), pa.string())]), files=True)


def _learned(job: ResolvedJob, finished: Finished) -> Encoder[Any]:
    """Return what training has learned of what there is to predict, from what the model says of itself."""
    from unfreeze_trainer.objectives.targets.label_sets import Sets
    from unfreeze_trainer.objectives.targets.labels import Codes
    from unfreeze_trainer.objectives.targets.numbers import Numbers, Read
    from unfreeze_trainer.objectives.targets.tags import TagCodes

    kind, names, scale = target_kind(job), finished.described.outputs, finished.described.scale
    each = np.arange(len(names))
    made: dict[str, Any] = {
        "Labels": Codes(each, names),
        "LabelSets": Sets(each, each, names, len(names)),
        "Tags": TagCodes(each, names, np.array([len(names)])),
        "Numbers": Read(np.zeros((1, len(names))), names),
        "NextTokens": 0,
        "TargetTexts": 0,
    }
    if kind.__name__ not in made:
        raise JobError("InvalidModel", f"{finished.folder}: models of the task {job.task.type} cannot be asked yet")
    learned: Encoder[Any] = kind(made[kind.__name__], str(finished.folder))
    if learned.labels:
        learned.labels = list(names)
    if isinstance(learned, Numbers) and scale:
        learned.std, learned.mean = np.array(scale[0]), np.array(scale[1])
    return learned
