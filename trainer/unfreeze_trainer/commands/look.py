"""What can be said of a job within a second, before anything that trains is loaded: folders, headers, columns, labels.

The readers are the training's own; torch is not imported. `unfreeze run` looks before it starts anything, `unfreeze
validate --claims` does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
    from unfreeze_api.grammar.columns import Column
    from unfreeze_api.tasks.base import TaskType
    from unfreeze_trainer.data.samples import DataSource

MAX_BYTES = 16 * 1024 * 1024
"""Of all tables together that are read to their end: a fifth of a second as CSV, half of one as JSON lines."""
LOOKED_FILES = 100
"""Pictures and clips whose header is read; the training reads those of 10,000."""


def look(job: ResolvedJob) -> str:
    """Look at what a job reads as the training will, and return what was seen, for people.

    Of tables that are too large for that, header, columns and the first rows are read.

    Raises
    ------
    JobError
        InvalidModel, InvalidData or InvalidJob, with the words of the training.
    """
    from unfreeze_trainer.runs.stages import naming, stage_jobs

    seen = _look(job)
    for index, stage in enumerate(stage_jobs(job)):
        with naming(job, index):
            seen += f"; stage {index + 1}: {_look(stage)}"
    return seen


def _look(job: ResolvedJob) -> str:
    from unfreeze_trainer.data.samples import read_splits, read_targets, target_kind
    from unfreeze_trainer.data.unlabelled import check_anchor, read_anchor
    from unfreeze_trainer.objectives.weighting import named_weights
    from unfreeze_trainer.runs.destination import check_apart

    kind = target_kind(job)
    reader = partial(reader_of(job), skip=job.data.on_error == "Skip")
    check_apart(job)
    look_at_models(job)
    sources = list(sources_of(job))
    tables = [dataset for _, dataset in sources] + ([job.data.anchor] if job.data.anchor else [])
    if sum(map(_bytes, tables)) > MAX_BYTES:
        for where, dataset in sources:
            read_targets(reader(dataset, where, head=True), kind)
        return "the model's folder and the first rows of the data are as the job says"
    learned, splits = read_splits(job, reader, kind)
    if weights := getattr(job.task.options, "class_weights_by_label", None):
        named_weights(weights, learned.labels, f"spec.task.{job.task.kind.member}")
    if anchor := read_anchor(job, reader):
        check_anchor(anchor)
    counts = ", ".join(f"{len(split):,} in {name}" for name, split in splits.items())
    return f"{len(learned.labels):,} labels, samples: {counts}" if learned.labels else f"samples: {counts}"


def look_at_models(job: ResolvedJob) -> None:
    """Look whether the folder of the base, or of each candidate, holds a model for a job's task.

    Raises
    ------
    JobError
        InvalidModel: some do not, and each is named.
    """
    from unfreeze_api.tasks import task_type
    from unfreeze_api.tasks.alignment import COLUMNS
    from unfreeze_trainer.errors import JobError

    task, wrong = task_type(job.task.type), list[str]()
    towers = job.model.towers
    for index, (field, source, path) in enumerate(job.model.bases):
        try:
            reads = [COLUMNS[towers[index].modality]] if towers else task.reads
            look_at_model(task, path, source, weights=job.model.initialization != "Random", reads=reads)
        except JobError as error:
            wrong.append(error.marked.replace("spec.model.source ", f"spec.{field} ", 1))
    if wrong:
        raise JobError("InvalidModel", "; ".join(wrong))


def look_at_model(
    task: TaskType, path: str, source: str, *, weights: bool, reads: Sequence[Column] | None = None
) -> None:
    """Look whether a folder holds a model for a task.

    Parameters
    ----------
    task, path, source
        The task, the folder, and its name in the manifest.
    weights
        Whether weights are read, too.
    reads
        Columns of which the model reads what stands there; None for all of the task's.

    Raises
    ------
    JobError
        InvalidModel: it does not.
    """
    from unfreeze_api.tasks.base import AUDIO, IMAGE, TEXT
    from unfreeze_trainer.models.folders import check_folder, library_of, preprocessor_files

    reads = task.reads if reads is None else reads
    libraries = ("transformers",) if task.towers and TEXT in reads else task.libraries
    library, where = library_of(path, source, libraries), f"spec.model.source {source}"
    check_folder(path, source, library=library, weights=weights)
    if IMAGE in reads and library == "transformers":
        preprocessor_files(path, where, says="a picture", kind="image processor")
    elif AUDIO in reads:
        preprocessor_files(path, where, says="sound", kind="feature extractor")


def reader_of(job: ResolvedJob) -> Callable[..., DataSource]:
    """Return what reads a source as a job's task does: (dataset, where, skip=, head=)."""
    from unfreeze_api.tasks import task_type
    from unfreeze_trainer.data.samples import target_kind

    task = task_type(job.task.type)
    if job.model.towers:
        from unfreeze_trainer.data.pairings import read_pairings

        modalities = [*dict.fromkeys(tower.modality.lower() for tower in job.model.towers)]
        return partial(read_pairings, modalities=modalities, kind=target_kind(job), checked=LOOKED_FILES)
    if task.joins:
        from unfreeze_trainer.data.pairings import PICTURE_AND_TEXT, read_pairings

        return partial(read_pairings, modalities=PICTURE_AND_TEXT, kind=target_kind(job), checked=LOOKED_FILES)
    if task.reads_text:
        return _reader_of_texts(job)
    return partial(_reader_of_files(task), kind=target_kind(job), checked=LOOKED_FILES)


def _reader_of_texts(job: ResolvedJob) -> Callable[..., DataSource]:
    from unfreeze_api.tasks.causal_lm import CausalLMSpec
    from unfreeze_api.tasks.seq_2_seq_lm import Seq2SeqLMSpec
    from unfreeze_api.tasks.text_embedding import TextEmbeddingSpec
    from unfreeze_api.tasks.token_classification import TokenClassificationSpec
    from unfreeze_trainer.data.samples import read_texts, target_kind

    if words := job.task.of(TokenClassificationSpec):
        from unfreeze_trainer.data.words import read_words

        return partial(read_words, spans=words.annotation == "Spans")
    if sentences := job.task.of(TextEmbeddingSpec):
        from unfreeze_trainer.data.sentences import read_sentences

        return partial(read_sentences, train=job.data.train, kind=target_kind(job), annotation=sentences.annotation)
    if language := job.task.of(CausalLMSpec):
        from unfreeze_trainer.data.dialogues import read_dialogues

        return partial(read_dialogues, kind=target_kind(job), annotation=language.annotation)
    if job.task.of(Seq2SeqLMSpec):
        from unfreeze_trainer.data.sequences import read_sequences

        return partial(read_sequences, kind=target_kind(job))
    return partial(read_texts, kind=target_kind(job))


def _reader_of_files(task: TaskType) -> Callable[..., DataSource]:
    from unfreeze_api.tasks.base import AUDIO, TEXT
    from unfreeze_trainer.data.audio import read_audio
    from unfreeze_trainer.data.images import read_images
    from unfreeze_trainer.data.speech import read_speech

    if AUDIO in task.reads and TEXT in task.reads:
        return read_speech
    return read_audio if AUDIO in task.reads else read_images


def sources_of(job: ResolvedJob) -> Iterator[tuple[str, Dataset]]:
    """Yield everything that has a source of its own, with what messages about it start with."""
    from unfreeze_trainer.data.samples import source_name

    test = job.data.test and job.data.test.dataset
    parts = {"train": job.data.train, "validation": job.data.validation.dataset, "test": test}
    for name, dataset in parts.items():
        if dataset:
            yield source_name(name, dataset), dataset


def _bytes(dataset: Dataset) -> int:
    from unfreeze_trainer.data.shards import shards
    from unfreeze_trainer.errors import JobError

    try:
        return sum(Path(file).stat().st_size for file in shards(dataset.path, "") if Path(file).is_file())
    except (OSError, JobError):  # whoever reads it says so
        return 0
