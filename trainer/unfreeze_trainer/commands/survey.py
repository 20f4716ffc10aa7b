"""What a job would read, without training: rows, columns, labels, lengths, repeated samples, leaks, broken rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_api.tasks import task_type
from unfreeze_api.tasks.base import AUDIO
from unfreeze_trainer.commands.facts import SAMPLED_ROWS, Facts, facts_of, name_words
from unfreeze_trainer.commands.leaks import said_of_leaks, telling_columns, told_in_texts
from unfreeze_trainer.commands.look import reader_of, sources_of
from unfreeze_trainer.commands.media import Media, read_media
from unfreeze_trainer.commands.remarks import remarks
from unfreeze_trainer.commands.repeats import between, numbered, within
from unfreeze_trainer.commands.surveyed import Column, Repeated, SourceSurvey, SplitSurvey, Spread, Survey
from unfreeze_trainer.data.cells import read_cells
from unfreeze_trainer.data.files import FileKind
from unfreeze_trainer.data.overlaps import whole_inputs
from unfreeze_trainer.data.pairings import COLUMNS, part_of
from unfreeze_trainer.data.samples import DataSource, Split, read_splits, target_kind
from unfreeze_trainer.data.shards import is_table_folder
from unfreeze_trainer.data.speech import said_of_shared
from unfreeze_trainer.data.split_names import SPLIT_WORDS
from unfreeze_trainer.errors import JobError, some_of, unmarked
from unfreeze_trainer.objectives.targets import Encoder, missing_rows
from unfreeze_trainer.objectives.targets.transcripts import Transcripts

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 60
"""Characters of an example."""
_EXAMPLES = 3
_SPLITS = 8
"""Different values of a column that may tell splits."""
Count = Callable[[Sequence[tuple[str, ...]]], list[int]]
"""Returns how many tokens texts, or pairs of them, have."""


def survey(job: ResolvedJob, *, count_tokens: Count | None, files: int, decided: Sequence[str] = ()) -> Survey:
    """Look at all that a job reads.

    Parameters
    ----------
    job
        Its data, task and seed count.
    count_tokens
        Counts tokens; none are counted without.
    files
        Pictures and clips of each source that are read whole; of more, so many at even distances.
    decided
        What was decided where no job says it, for people.
    """
    named = {where.partition(".source")[0].rpartition(".")[2]: (where, dataset) for where, dataset in sources_of(job)}
    tables = {name: _table(job.task.type, dataset, where) for name, (where, dataset) in named.items()}
    read: dict[str, DataSource] = {}

    def reader(dataset: Dataset, where: str) -> DataSource:
        read[where] = reader_of(job)(dataset, where, skip=True)
        return read[where]

    learned, splits, problem = None, dict[str, Split](), ""
    try:
        learned, splits = read_splits(job, reader, target_kind(job))
    except JobError as error:
        problem = f"{error.reason}: {error.message}"
    media = _media(job, splits, files)
    sources = {
        name: _of_source(dataset, read.get(where), tables[name], media) for name, (where, dataset) in named.items()
    }
    targets = numbered({name: split.targets.values for name, split in splits.items()})
    inputs = _inputs(splits, media)
    same = {name: targets[name][kept] for name, (_, kept) in inputs.items()}
    codes = {name: found for name, (found, _) in inputs.items()}
    shown = {
        name: _of_split(
            job,
            split=split,
            learned=learned,
            media=media.get(split.source),
            count_tokens=count_tokens,
            repeated=None
            if learned.together
            else within(codes[name], same[name]),  # a picture may have several captions
        )
        for name, split in splits.items()
        if learned
    }
    found = Survey(
        task=job.task.type,
        decided=list(decided),
        sources=sources,
        splits=shown,
        repeated=between(codes, same),
        problem=problem,
    )
    if not problem and job.data.on_error == "Fail":
        broken = next((line for source in sources.values() for line in source.broken), "")
        found = found.model_copy(update={"problem": broken and f"InvalidData: {broken}"})
    warnings = [*remarks(job, found), *_mixed(tables["train"])]
    if learned:
        warnings += _leaks(splits["train"], learned, tables["train"], reads_text=not media)
    if isinstance(learned, Transcripts):
        heard = {split.source: name for name, split in reversed(splits.items())}
        warnings += [f"{name}: {said}" for source, name in heard.items() if (said := said_of_shared(source))]
    return found.model_copy(update={"warnings": warnings})


@dataclass(frozen=True, eq=False)
class _Table:
    """A table as it lies there."""

    rows: int
    numbers: np.ndarray
    """Index in the file of each row, int64."""
    columns: list[Column]
    others: dict[str, pa.ChunkedArray]
    """Cells of the columns that the job does not read."""


def _table(task: str, dataset: Dataset, where: str) -> _Table:
    """Return what is in a table; nothing of a folder, and of what cannot be read."""
    try:
        if Path(dataset.path).is_dir() and not is_table_folder(dataset.path):
            return _Table(0, np.empty(0, np.int64), [], {})
        cells = read_cells(dataset.path, where)
    except JobError:  # as whoever reads it says
        return _Table(0, np.empty(0, np.int64), [], {})
    facts, reads = facts_of(cells), task_type(task).reads
    own = dataset.columns.model_dump(by_alias=True, include={column.field for column in reads}, exclude_none=True)
    read_as = {name: key for key, names in own.items() for name in (names if isinstance(names, list) else [names])}
    columns = [_column(facts[name], cells.texts.get(name), read_as.get(name, "")) for name in cells.names]
    others = {name: column for name, column in cells.texts.items() if name not in read_as}
    return _Table(len(cells.numbers), cells.numbers, columns, others)


def _mixed(table: _Table) -> Iterator[str]:
    """Yield what is said of columns that tell the split of each row, where one table has several splits."""
    few = {column.name for column in table.columns if (column.distinct or 0) <= _SPLITS}
    for name in table.others.keys() & few:
        values = [value for value in table.others[name].unique().to_pylist() if value and value.strip()]
        told = {SPLIT_WORDS.get(value.strip().lower()) for value in values}
        if len(told - {None}) > 1 and (None not in told or "split" in name_words(name)):
            yield (
                f"column {name!r} says which split a row is of ({some_of(values)}), and all rows are read: write a table of each, and name"
                " them in spec.data.train, validation and test"
            )
        elif "fold" in name_words(name) and len(values) > 1:
            yield (
                f"column {name!r} says which fold a row is of ({some_of(values)}), and rows are held out from all of them: where folds keep"
                " apart what belongs together, write a table without one of them and one of it, and name them in spec.data.train and validation"
            )


def _of_source(
    dataset: Dataset, source: DataSource | None, table: _Table, media: Mapping[DataSource, Media]
) -> SourceSurvey:
    broken = [unmarked(error.message) for error in source.broken] if source else []
    left_out = source.left_out if source else 0
    if source and source in media:
        broken += media[source].broken
        left_out += len(media[source].broken)
    rows = len(source.inputs) if source else table.rows
    return SourceSurvey(source=dataset.source, rows=rows, left_out=left_out, broken=broken, columns=table.columns)


def _column(facts: Facts, column: pa.ChunkedArray | None, read_as: str) -> Column:
    import pyarrow.compute as pc

    shown = dict.fromkeys(value[:_SHOWN] for value in facts.values[:SAMPLED_ROWS])
    return Column(
        name=facts.name,
        holds=facts.look,
        read_as=read_as,
        missing=0 if column is None else len(missing_rows(column)),
        distinct=None if column is None else pc.count_distinct(column).as_py(),
        examples=list(shown)[:_EXAMPLES],
    )


def _kind(job: ResolvedJob) -> FileKind | None:
    """Return what the files of a job's sources hold; None where it reads none."""
    from unfreeze_trainer.data.audio import CLIPS
    from unfreeze_trainer.data.images import PICTURES

    task = task_type(job.task.type)
    if task.reads_text:
        return None
    if task.joins:
        return COLUMNS[_looked_at(job)]
    return CLIPS if AUDIO in task.reads else PICTURES


def _looked_at(job: ResolvedJob) -> str:
    """Return the modality of a job of several whose files are looked at: pictures where there are some."""
    towers = {tower.modality for tower in job.model.towers}
    return "image" if not towers or "Image" in towers else "audio"


def _media(job: ResolvedJob, splits: Mapping[str, Split], files: int) -> dict[DataSource, Media]:
    kind = _kind(job)
    sources = dict.fromkeys(split.source for split in splits.values())
    joins = task_type(job.task.type).joins
    of_files = partial(part_of, modality=_looked_at(job)) if joins else lambda source: source
    return {source: read_media(of_files(source), kind, files) for source in sources} if kind else {}


def _inputs(splits: Mapping[str, Split], media: Mapping[DataSource, Media]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return for each split the same number for the same input, and which of its samples these are."""
    import pyarrow as pa

    if media:
        places = np.unique(np.concatenate([seen.hashes for seen in media.values()]))
        found = {}
        for name, split in splits.items():
            seen = media[split.source]
            sound, hashes = seen.rows[seen.kinds != ""], seen.hashes[seen.kinds != ""]
            kept = np.flatnonzero(np.isin(split.rows, sound))
            own = hashes[np.searchsorted(sound, split.rows[kept])]
            found[name] = np.searchsorted(places, own), kept
        return found
    sources = dict.fromkeys(split.source for split in splits.values())
    parts = [whole_inputs(source.inputs).cast(pa.large_string()) for source in sources]
    if not parts:
        return {}
    encoded = pa.chunked_array([chunk for part in parts for chunk in part.chunks]).dictionary_encode()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks]).astype(np.int64)
    of_source = dict(zip(sources, np.split(codes, np.cumsum([len(part) for part in parts])[:-1]), strict=True))
    return {name: (of_source[split.source][split.rows], np.arange(len(split))) for name, split in splits.items()}


def _of_split(
    job: ResolvedJob,
    *,
    split: Split,
    learned: Encoder[Any],
    media: Media | None,
    count_tokens: Count | None,
    repeated: Repeated | None,
) -> SplitSurvey:
    labels, without = _labels(split, learned)
    values = {} if learned.labels else _values(split, learned)
    if media:
        kept = np.isin(media.rows, split.rows)
        sound = kept & (media.kinds != "")
        kinds = dict(Counter(media.kinds[sound].tolist()).most_common())
        lengths, read = _sizes(media.sizes[sound], kinds), int(kept.sum())
    else:
        lengths, kinds, read = dict(_lengths(job, split, count_tokens)), {}, None
    return SplitSurvey(
        source=split.source.dataset.source,
        samples=len(split),
        labels=labels,
        without_label=without,
        values=values,
        lengths=lengths,
        kinds=kinds,
        files_read=read,
        repeated=repeated,
    )


def _labels(split: Split, learned: Encoder[Any]) -> tuple[dict[str, int], int | None]:
    """Return how many samples, or words, have each label, the most frequent first, and how many samples have none."""
    if not learned.labels:
        return {}, None
    values = split.targets.values
    several = values.ndim > 1
    flat = np.concatenate(values) if values.dtype == object else values[values >= 0]
    counts = np.bincount(flat.astype(np.int64), minlength=len(learned.labels)).tolist()
    ordered = sorted(zip(learned.labels, counts, strict=True), key=lambda one: -one[1])
    return dict(ordered), int((values < 0).all(axis=1).sum()) if several else None


def _values(split: Split, learned: Encoder[Any]) -> dict[str, Spread]:
    names = getattr(learned, "names", None)
    if names is None:  # which texts belong together is no figure
        return {}
    return {name: spread(column) for name, column in zip(names, split.targets.values.T, strict=True)}


def spread(figures: np.ndarray) -> Spread:
    """Return how figures are spread; at least one."""
    least, median, most_have, most = np.quantile(figures, [0, 0.5, 0.95, 1]).tolist()
    return Spread(least=least, median=median, mean=float(np.mean(figures)), most_have=most_have, most=most)


def _sizes(sizes: np.ndarray, kinds: Mapping[str, int]) -> dict[str, Spread]:
    """Return how large pictures are, or how long clips last."""
    if not len(sizes):
        return {}
    if any(kind.endswith("Hz") for kind in kinds):
        return {"seconds": spread(sizes[:, 0])}
    return {"width": spread(sizes[:, 0]), "height": spread(sizes[:, 1])}


def _lengths(job: ResolvedJob, split: Split, count_tokens: Count | None) -> Iterator[tuple[str, Spread]]:
    """Yield how long texts are: of pairs both together but where each has a vector, of lists of words their number too."""
    import pyarrow.compute as pc

    from unfreeze_api.tasks.causal_lm import CausalLMSpec
    from unfreeze_api.tasks.text_embedding import TextEmbeddingSpec
    from unfreeze_api.tasks.token_classification import TokenClassificationSpec
    from unfreeze_trainer.data.words import joined

    words = job.task.of(TokenClassificationSpec)
    rows = np.unique(np.linspace(0, len(split) - 1, min(len(split), SAMPLED_ROWS)).astype(np.int64))
    texts = _texts(split, rows)
    if words:
        yield "words", spread(split.targets.units)
    language = job.task.of(CausalLMSpec)
    if language and language.annotation == "Messages":  # what the chat template adds no folder of a model is needed for
        texts = [(" ".join(message["content"] for message in json.loads(row[0])),) for row in texts]
        characters = np.array([len(row[0]) for row in texts])
    elif words and words.annotation == "Tags":
        texts = [(joined(both[0])[0],) for both in texts]
        characters = np.array([len(both[0]) for both in texts])
    else:
        lengths = [pc.utf8_length(part).to_numpy() for part in _parts(split.source.inputs)]
        characters = np.sum(lengths, axis=0)[split.rows]
    if job.task.of(TextEmbeddingSpec):
        texts = [(text,) for all_of in texts for text in all_of if text]
        each = np.concatenate([part[split.rows] for part in lengths])
        characters = each[each > 0]  # without negatives that are not there
    yield "characters", spread(characters)
    if count_tokens:
        yield "tokens", spread(np.array(count_tokens(texts)))


def _parts(inputs: pa.ChunkedArray) -> list[pa.ChunkedArray]:
    """Return the texts of inputs: a column, or both of pairs."""
    return inputs.flatten() if inputs.type.num_fields else [inputs]


def _texts(split: Split, rows: np.ndarray) -> list[tuple[str, ...]]:
    """Return texts, or pairs of them, of some samples."""
    import pyarrow as pa

    chosen = split.source.inputs.take(pa.array(split.rows[rows]))
    return list(zip(*(part.to_pylist() for part in _parts(chosen)), strict=True))


def _leaks(split: Split, learned: Encoder[Any], table: _Table, *, reads_text: bool) -> Iterator[str]:
    """Yield what tells the labels of the training data by itself."""
    import pyarrow as pa

    labels = split.targets.values
    if not learned.labels or labels.ndim != 1 or labels.dtype == object:
        return
    numbers = split.rows if split.source.numbers is None else split.source.numbers[split.rows]
    there = np.isin(numbers, table.numbers)  # what nobody reads may be what is broken
    places = pa.array(np.searchsorted(table.numbers, numbers[there]))
    others = {name: column.take(places) for name, column in table.others.items()}
    columns = list(telling_columns(others, labels[there]))
    in_texts: dict[str, float] = {}
    if reads_text:
        rows = np.unique(np.linspace(0, len(split) - 1, min(len(split), SAMPLED_ROWS)).astype(np.int64))
        texts = [" ".join(both) for both in _texts(split, rows)]
        in_texts = told_in_texts(texts, labels[rows], learned.labels)
    yield from said_of_leaks(columns, in_texts)
