"""The data that a finished model is asked of, with what is right and without."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.commands.finished import Finished
from unfreeze_trainer.commands.look import reader_of
from unfreeze_trainer.data.label_names import names_of
from unfreeze_trainer.data.samples import DataSource, Split, read_targets, target_kind
from unfreeze_trainer.data.unlabelled import unlabelled
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError, quoted, some_rows
from unfreeze_trainer.modalities.base import Modality
from unfreeze_trainer.objectives.targets import Encoder, Targets
from unfreeze_trainer.objectives.targets.captions import Captions
from unfreeze_trainer.objectives.targets.labels import SHOWN


def _where(job: ResolvedJob) -> str:
    return job.data.train.path


def labelled_data(job: ResolvedJob, finished: Finished, modality: Modality) -> tuple[Encoder[Any], Split]:
    """Return data with what is right of each sample; the modality reads them where that needs the model."""
    kind, skip = target_kind(job), job.data.on_error == "Skip"
    read = modality.read if modality.needs_model else partial(reader_of(job), skip=skip)
    learned, data = _learned(job, finished), job.data.train
    named = {name for column in kind.columns(data.columns) for name in names_of(data).get(column, ())}
    if named and named.isdisjoint(learned.labels):
        data = data.model_copy(update={"label_names": {}})  # it has learned their numbers
    source = read(data, _where(job))
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
    source, lengths = unlabelled(job, job.data.train, _where(job))
    learned, count = _learned(job, finished), len(source.inputs)
    values: np.ndarray
    if lengths is not None:
        values = np.empty(count, dtype=object)
        values[:] = [np.zeros(length, dtype=np.int32) for length in lengths]
    elif not learned.labels and target_kind(job) is not Captions:
        values = np.zeros((count, len(finished.described.outputs)))
    else:
        values = np.full((count, 1), -1) if target_kind(job).cells == "Lists" else np.zeros(count, dtype=np.int64)
    units = np.ones(count, dtype=np.int64) if lengths is None else lengths
    return learned, Split(source, np.arange(count), Targets(values, units, np.zeros(count, dtype=np.int64)))


def _learned(job: ResolvedJob, finished: Finished) -> Encoder[Any]:
    """Return what training has learned of what there is to predict, from what the model says of itself."""
    from unfreeze_trainer.objectives.targets.captions import Read as Shown
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
        "Captions": Shown(np.empty((0, 2), np.int64), np.empty(0, np.int64), names),
        "Descriptions": np.zeros(0, dtype=np.int64),
        "NextTokens": 0,
        "Pairings": np.empty((0, 2), np.int64),
        "TargetTexts": 0,
        "Transcripts": 0,
    }
    if kind.__name__ not in made:
        raise JobError("InvalidModel", f"{finished.folder}: models of the task {job.task.type} cannot be asked yet")
    learned: Encoder[Any] = kind(made[kind.__name__], str(finished.folder))
    if learned.labels:
        learned.labels = list(names)
    if isinstance(learned, Numbers) and scale:
        learned.std, learned.mean = np.array(scale[0]), np.array(scale[1])
    return learned
