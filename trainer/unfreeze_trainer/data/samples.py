"""The samples of a job: its sources, its splits and what they are to become, checked before anything is trained."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze_api.contracts.resolved import Dataset, HeldOut, ResolvedJob
from unfreeze_api.tasks import task_type
from unfreeze_api.tasks.base import is_multi_label
from unfreeze_trainer.data.few import few, most, numbers_of
from unfreeze_trainer.data.held_out import hold_out, hold_out_whole
from unfreeze_trainer.data.label_names import named_alike, with_names
from unfreeze_trainer.data.shards import is_table_folder, shards
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.data.verdicts import verdicts
from unfreeze_trainer.data.web_dataset import is_reference, read_reference
from unfreeze_trainer.errors import JobError, some_of, some_rows
from unfreeze_trainer.objectives.targets import Encoder, Targets, encoder, is_text, missing_rows

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

_LIKE_MISSING = ("nan", "NaN", "None", "null", "NULL", "<NA>")
"""What programs write where a text is missing."""
_FEW = 0.5
"""Of the share that is to be held out: fewer are said."""
TargetKind = type[Encoder[Any]]
LABELS: TargetKind = encoder("Labels")


@dataclass(frozen=True, eq=False)
class DataSource:
    """What one file or folder holds."""

    dataset: Dataset
    """Where it lies."""
    where: str
    """What messages start with: field and source."""
    inputs: pa.ChunkedArray
    """Texts, structs of two texts, or paths of images."""
    targets: pa.ChunkedArray
    """What each sample is to become, as it stands in its column; of several columns structs."""
    files: bool = False
    """Whether the inputs are paths of files."""
    numbers: np.ndarray | None = None
    """Index in the file of each sample, int64, where others were left out."""
    left_out: int = 0
    """How many of its rows could not be read and were left out."""
    broken: Sequence[JobError] = ()
    """What is wrong with the first of these."""

    def content(self, row: int) -> Any:
        """Return the text of a sample, or the path or content of its file."""
        cell = self.inputs[row].as_py()
        return read_reference(cell) if is_reference(self.inputs.type) else cell

    def number(self, row: int) -> int:
        """Return what a message calls a sample's row, counted from 1."""
        return int(row if self.numbers is None else self.numbers[row]) + 1


@dataclass(frozen=True, eq=False)
class Split:
    """Samples that are trained on, or measured on."""

    source: DataSource
    rows: np.ndarray
    """Indices into the source, sorted, int64."""
    targets: Targets
    """Of each of these rows."""

    def __len__(self) -> int:
        return len(self.rows)


def read_texts(
    dataset: Dataset,
    where: str,
    *,
    kind: TargetKind = LABELS,
    skip: bool = False,
    head: bool = False,
    texts: Sequence[str] | None = None,
) -> DataSource:
    """Read a table of texts, or of pairs of them, and targets of a kind, or its first rows.

    JobError InvalidData where a text or target is missing or empty, unless such rows are skipped. `texts` are the columns of
    texts; without them those of text and textPair.
    """
    unread, targets = Unread(where, skip=skip), kind.columns(dataset.columns)
    if texts is None:
        texts = [name for name in (dataset.columns.text, dataset.columns.text_pair) if name]
    cells = dict.fromkeys(targets, kind.cells or "One")
    table = read_table(dataset.path, [*texts, *targets], where, unread, head=head, kinds=cells)
    table = with_names(table, dataset, targets) if kind.cells != "Numbers" else table
    total = table.num_rows + len(unread)
    numbers = unread.others(total)
    inputs = [text_cells(table[name], name, numbers, unread, where) for name in texts]
    source = DataSource(
        dataset,
        where,
        beside(inputs, list(texts)),
        beside([table[name] for name in targets], targets),
        numbers=numbers,
    )
    return readable(source, unread, total, head=head, kind=kind)


SEVERAL_TEXTS = "several texts in a row: write a row for each, as pandas.DataFrame.explode does"
"""What a column of lists of texts holds, as pictures with several captions have them, and what to do about it."""


def text_cells(column: pa.ChunkedArray, name: str, numbers: np.ndarray, unread: Unread, where: str) -> pa.ChunkedArray:
    """Return a column of texts; rows without one are added to `unread`. JobError InvalidData of a column that holds something else."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or len(column) == 0):
        what = "not text: write it as text"
        if pa.types.is_struct(column.type):
            what = "objects: write the text in them into a column of its own, as flatten of datasets and json_normalize of pandas do"
        elif pa.types.is_nested(column.type):
            what = SEVERAL_TEXTS
        raise JobError("InvalidData", f"{where}: column {name!r} holds {column.type}, {what}; or name another one")
    rows = numbers[without_text(column)].tolist()
    it = "it" if len(rows) == 1 else "them"
    unread.add(
        rows,
        JobError("InvalidData", f"{where}: no text in column {name!r} of {some_rows(rows)}; fill in or remove {it}"),
    )
    return column


def without_text(column: pa.ChunkedArray) -> np.ndarray:
    """Return the indices of cells of a column of texts that are null, or have no word, int64 of shape (found,)."""
    return missing_rows(column)


def beside(columns: list[pa.ChunkedArray], names: list[str]) -> pa.ChunkedArray:
    """Return one column: itself, or one of structs of several."""
    import pyarrow as pa

    if len(columns) == 1:
        return columns[0]
    return pa.Table.from_arrays(columns, names=names).to_struct_array()


def readable(source: DataSource, unread: Unread, total: int, *, head: bool, kind: TargetKind = LABELS) -> DataSource:
    """Return a source without the rows that cannot be read and, where these are skipped, without those that lack a target.

    Parameters
    ----------
    source
        Its numbers are those of all rows that were read.
    unread
        What of them cannot be read.
    total
        Rows of the file.
    head
        These are its first rows alone: how many of all cannot be read is not known.
    kind
        Of the targets.

    Raises
    ------
    JobError
        InvalidData: more than half of them, or there are none.
    """
    numbers = source.numbers
    assert numbers is not None
    if unread.skip:
        for rows, error in kind.broken(source.targets, target_name(source, kind), source.where, numbers):
            unread.add(rows, error)
        if not head:
            unread.check(total)
        kept = np.flatnonzero(np.isin(numbers, unread.others(total)))
        inputs, targets = (most(cells, kept) for cells in (source.inputs, source.targets))
        source = replace(
            source, inputs=inputs, targets=targets, numbers=numbers[kept], left_out=len(unread), broken=unread.errors
        )
    if len(source.targets) == 0 and not (head and len(unread)):
        raise JobError("InvalidData", f"{source.where}: no samples; the file has no rows")
    return source if len(unread) else replace(source, numbers=None)


def target_kind(job: ResolvedJob) -> TargetKind:
    """Return the encoder of what a job's task predicts, as its options say."""
    kind = "LabelSets" if is_multi_label(job.task.options) else task_type(job.task.type).targets
    return encoder(kind).with_options(job.task.options)


def read_targets(source: DataSource, kind: TargetKind) -> Any:
    """Return what an encoder makes of a source's column."""
    return kind.read(source.targets, target_name(source, kind), source.where)


def target_name(source: DataSource, kind: TargetKind) -> str:
    """Return what messages call the column, or the columns, with the targets."""
    return ", ".join(kind.columns(source.dataset.columns))


def source_name(split: str, dataset: Dataset) -> str:
    """Return what messages about a source start with: field and source."""
    return f"spec.data.{split}.source {dataset.source}"


def read_splits(
    job: ResolvedJob, read: Callable[[Dataset, str], DataSource], kind: TargetKind
) -> tuple[Encoder[Any], dict[str, Split]]:
    """Read and check all data of a job.

    Parameters
    ----------
    job
        Its data, seed, batch size and world size count.
    read
        Reads one source; the second argument is what its messages start with.
    kind
        Of the targets.

    Returns
    -------
    tuple
        What there is to predict, and the splits train, validation and, if the job has one, test.

    Raises
    ------
    JobError
        InvalidData or InvalidJob, with field, file, rows and what to do.
    """
    _require_other_files(job)
    learned, splits = _of_training_data(job, read, kind)
    train, held_out = splits["train"].source, _held_out(job)
    learned.fit(splits["train"].targets, train.where)
    for said in doubts_of(learned, splits["train"]):
        log.warning("%s", said)
    for name, part in held_out.items():
        if part.dataset:
            source = read(named_alike(part.dataset, job.data.train), source_name(name, part.dataset))
            known = learned.encode(read_targets(source, kind), source.where, source.numbers)
            splits[name] = Split(source, np.arange(len(known)), known)
        else:
            _require_some(name, float(part.fraction or 0), splits, kind)
    _check_workers(job, len(splits["train"]))
    return learned, {name: splits[name] for name in ("train", *held_out)}


def doubts_of(learned: Encoder[Any], train: Split) -> list[str]:
    """Return what is strange about the labels and texts of the training data, in sentences for people that begin with the source."""
    said = [*learned.doubts()]
    labels = train.targets.values
    if train.source.files and learned.labels and labels.ndim == 1 and labels.dtype != object:
        files = numbers_of(few(train.source.inputs, train.rows))
        owners, counts = np.unique(np.unique(np.stack([files, labels], axis=1), axis=0)[:, 0], return_counts=True)
        if rows := int(np.isin(files, owners[counts > 1]).sum()):
            said.append(
                f"{rows:,} of {len(files):,} rows share their file with a row of another label, and a model cannot get both right: where one"
                " has several labels write them into one row, and set the task's labels to Multi; where rows are parts of one, write a file for each"
            )
    if missing := _like_missing(train.source.inputs):
        said.append(
            f"{missing:,} texts are 'nan', 'None' or 'null', as programs write a missing one, and are learned from: leave these rows out"
        )
    dataset = train.source.dataset
    said += verdicts(dataset, learned.columns(dataset.columns), holds=learned.holds, scored=learned.scored)
    return [f"{train.source.where}: {line}" for line in said]


def _like_missing(texts: pa.ChunkedArray) -> int:
    """Return how many texts are what programs write where one is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not is_text(texts.type):
        return 0
    words = pa.array(_LIKE_MISSING, texts.type)
    short = (
        chunk.filter(pc.less_equal(pc.binary_length(chunk), max(map(len, _LIKE_MISSING)))) for chunk in texts.chunks
    )
    return sum(pc.sum(pc.is_in(chunk, value_set=words)).as_py() or 0 for chunk in short)


def _require_some(name: str, fraction: float, splits: Mapping[str, Split], kind: TargetKind) -> None:
    """Raise JobError where a share of the training data is none of its samples; warn where groups that stay whole leave few."""
    train, total = splits["train"].source, len(splits["train"].source.targets)
    said, remedy = f"spec.data.{name}.fraction {fraction} of the {total} samples of {train.where}", "give more data"
    whole = ""
    if kind.together:
        most = np.bincount(splits["train"].targets.groups).max(initial=0)
        whole = f", as rows that share {kind.together} stay together, up to {most:,} of them"
        remedy = f"set spec.data.{name}.source"
    if not len(splits[name]):
        alone = int((np.bincount(splits["train"].targets.groups) == 1).sum())
        if not kind.together and 2 * alone > total:
            whole = (
                f", as {alone:,} of them alone have their label, which is learned from: is it in the right column? Else"
            )
            raise JobError("InvalidData", f"{said} leaves none to measure on{whole} {remedy}")
        raise JobError("InvalidData", f"{said} leaves none to measure on{whole}: raise the fraction, or {remedy}")
    if whole and len(splits[name]) < _FEW * fraction * total:
        log.warning("%s are %d%s: to measure on more %s", said, len(splits[name]), whole, remedy)


def _held_out(job: ResolvedJob) -> dict[str, HeldOut]:
    return {"validation": job.data.validation} | ({"test": job.data.test} if job.data.test else {})


def _of_training_data(
    job: ResolvedJob, read: Callable[[Dataset, str], DataSource], kind: TargetKind
) -> tuple[Encoder[Any], dict[str, Split]]:
    """Return what there is to predict, and the split train with those that are shares of the training data."""
    train = read(job.data.train, source_name("train", job.data.train))
    column = read_targets(train, kind)
    learned = kind(column, train.where)
    targets = learned.encode(column, train.where)
    fractions = {name: part.fraction for name, part in _held_out(job).items() if part.fraction}
    if kind.together:
        parts = hold_out_whole(targets.groups, fractions, job.training.seed)
    else:
        parts = hold_out(targets.groups, fractions, job.training.seed, of_each=job.semantics.held_out == "OfEachLabel")
    return learned, {name: Split(train, rows, targets.take(rows)) for name, rows in parts.items()}


def read_training_rows(
    job: ResolvedJob, read: Callable[[Dataset, str], DataSource], kind: TargetKind, most_rows: int
) -> tuple[Encoder[Any], Split, int]:
    """Read rows that are trained on, and no other data than that which has them.

    Parameters
    ----------
    job, read, kind
        As of `read_splits`.
    most_rows
        Of more rows this many are drawn, with the shares of their groups kept; the seed is the job's.

    Returns
    -------
    tuple
        What there is to predict, the rows in a source that has no others, and how many the training split has.

    Raises
    ------
    JobError
        As of `read_splits`, for the training data.
    """
    learned, splits = _of_training_data(job, read, kind)
    train = splits["train"]
    learned.fit(train.targets, train.source.where)
    total, drawn = len(train), np.arange(len(train))
    if total > most_rows:
        drawn = hold_out(train.targets.groups, {"drawn": most_rows / total}, job.training.seed)["drawn"]
    rows = train.rows[drawn]
    numbers = rows if train.source.numbers is None else train.source.numbers[rows]
    inputs, cells = (few(column, rows) for column in (train.source.inputs, train.source.targets))
    source = replace(train.source, inputs=inputs, targets=cells, numbers=numbers)
    return learned, Split(source, np.arange(len(rows)), train.targets.take(drawn)), total


def _require_other_files(job: ResolvedJob) -> None:
    """Raise JobError where what is measured on is what is trained on, and warn of files that are both."""
    for name, part in (("validation", job.data.validation), ("test", job.data.test)):
        if not part or not part.dataset:
            continue
        shared, all_of_both = _shared(part.dataset.path, job.data.train.path)
        if shared and not all_of_both:
            log.warning(
                "%s: files of the training data are measured on as well, where they are learned by heart: %s",
                source_name(name, part.dataset),
                some_of(shared),
            )
        elif shared:
            raise JobError(
                "InvalidData",
                f"{source_name(name, part.dataset)} is the training data, and what it measures is how well that was"
                f" learned by heart: name another file, or set spec.data.{name}.fraction in place of source",
            )


def _shared(one: str, other: str) -> tuple[list[str], bool]:
    """Return the files, or the folder, that two paths have in common, and whether neither has more."""
    try:
        if any(Path(path).is_dir() and not is_table_folder(path) for path in (one, other)):
            return [one] * Path(one).samefile(other), True
        files, others = ({_identity(file): file for file in shards(path, "")} for path in (one, other))
        return [file for key, file in files.items() if key in others], files.keys() == others.keys()
    except (OSError, JobError):  # whoever reads it reports which is missing
        return [], False


def _identity(path: str) -> tuple[int, int]:
    """Return what a file is known by, whatever it is called."""
    stat = os.stat(path)  # noqa: PTH116
    return stat.st_dev, stat.st_ino


def _check_workers(job: ResolvedJob, samples: int) -> None:
    world_size, batch_size = job.distribution.world_size, job.training.batch_size
    workers = f"{world_size} workers (spec.distribution.numNodes x numProcPerNode)"
    if batch_size < world_size:
        raise JobError(
            "InvalidJob",
            f"spec.training.batchSize {batch_size} is less than the {workers}, it counts the samples of all together:"
            " raise it, or use fewer workers",
        )
    if samples < world_size:
        raise JobError("InvalidJob", f"spec.data.train leaves {samples} samples for {workers}: use fewer workers")
