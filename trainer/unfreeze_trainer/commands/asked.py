"""A finished model with data that it is asked of, as the task that it was trained on, without training data."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import ValidationError
from pydantic.alias_generators import to_snake
from torch import Tensor, nn

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob, Semantics
from unfreeze_api.grammar.reading import causes
from unfreeze_api.tasks import task_type
from unfreeze_api.tasks.base import AUDIO
from unfreeze_api.tasks.token_classification import TokenClassificationSpec
from unfreeze_trainer.commands.finished import Finished, unreadable
from unfreeze_trainer.commands.look import reader_of
from unfreeze_trainer.data.samples import DataSource, Split, read_targets, target_kind
from unfreeze_trainer.errors import JobError, one_line
from unfreeze_trainer.objectives.targets import Encoder, Targets

if TYPE_CHECKING:
    from unfreeze_trainer.tasks.composed import ComposedTask

SPLIT = "test"
"""What the task calls the data that a model is asked of."""
_CHUNK = 16_384
"""Samples among which those of alike length are put together."""
_ONLY_TRAINING = ("classWeights", "classWeightsByLabel", "labelSmoothing", "focalLoss", "sampling")
"""Options of a task that change what is learned alone."""


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


@dataclass(frozen=True)
class Asked:
    """A model, opened with some data.

    Parameters
    ----------
    task
        Its split SPLIT is the data.
    finished
        The model.
    device
        Where it computes.
    """

    task: ComposedTask
    finished: Finished
    device: torch.device

    @cached_property
    def module(self) -> nn.Module:
        """The model, ready to be asked."""
        module = self.task.build_model().module
        folder = str(self.finished.folder)
        if self.finished.adapter == "PEFT":
            from peft import PeftModel

            module = PeftModel.from_pretrained(module, folder)
        elif self.finished.adapter:
            from unfreeze_trainer.models.adapters.bottleneck_layers import load

            module = load(module, folder)
        return module.eval().to(self.device)

    @torch.inference_mode()
    def outputs(self, batch_size: int) -> Iterator[tuple[np.ndarray, Tensor, dict[str, Tensor]]]:
        """Yield the samples of each batch, what the model says of them, and the batch: samples of alike length together.

        Parameters
        ----------
        batch_size
            Samples that go through the model at once.
        """
        task, standard = self.task, self._standard
        batches = [samples for chunk in chunks(task) for samples in _by_length(task, chunk, batch_size)]
        read = task.batches(SPLIT, (samples.tolist() for samples in batches))
        for samples, here in zip(batches, read, strict=True):
            batch = {name: tensor.to(self.device) for name, tensor in here.items()}
            found = task.forward(self.module, batch)
            yield samples, found if standard is None else (found.double() - standard[1]) / standard[0], batch

    @property
    def _standard(self) -> tuple[Tensor, Tensor] | None:
        """Return factor and offset that an adapter's head has applied, where the task expects standardised numbers."""
        scale = self.finished.described.scale
        if scale is None or self.finished.adapter is None:
            return None
        factor, offset = (torch.tensor(values, dtype=torch.float64, device=self.device) for values in scale)
        return factor, offset


def chunks(task: ComposedTask) -> Iterator[np.ndarray]:
    """Yield the samples of the data, in order, as many as are put together by their length."""
    total = task.splits[SPLIT]
    for start in range(0, total, _CHUNK):
        yield np.arange(start, min(total, start + _CHUNK))


def _by_length(task: ComposedTask, samples: np.ndarray, size: int) -> list[np.ndarray]:
    order = samples[np.argsort(-task.lengths(SPLIT)[samples], kind="stable")]
    return [order[start : start + size] for start in range(0, len(order), size)]


def ask(
    finished: Finished, data: Path, *, columns: Mapping[str, str], labelled: bool, skip: bool, device: str | None = None
) -> Asked:
    """Open a model with the data that it is asked of.

    Parameters
    ----------
    finished
        The model.
    data
        A table, or a folder of files.
    columns
        Names of columns, by their fields, where they are not those of the training data.
    labelled
        Whether the data say what is right.
    skip
        Leave out rows that cannot be read.
    device
        Where it computes, in torch's words; the accelerator where there is one.

    Raises
    ------
    JobError
        InvalidModel, InvalidData, or InvalidJob: no such device.
    """
    place = _device(device)
    job = _job(finished, data, columns, skip=skip)
    module = importlib.import_module(f"unfreeze_trainer.tasks.{to_snake(job.task.type)}")

    def read(task: ComposedTask) -> tuple[Encoder[Any], dict[str, Split]]:
        split = _labelled(task.job, finished) if labelled else _unlabelled(task.job, finished)
        return split[0], dict.fromkeys(("train", "validation", SPLIT), split[1])

    kind = getattr(module, job.task.type)
    try:
        task = type(kind.__name__, (kind,), {"read": read})(job)
    except JobError as error:
        told = error.marked.replace("in spec.data.<part>.columns", "by --column FIELD=NAME")
        raise JobError(error.reason, told) from error
    return Asked(task, finished, place)


def _device(name: str | None) -> torch.device:
    """Return a device on which something can be computed."""
    chosen = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=chosen).tolist()
        return torch.device(chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # as torch says that it was built without one
        raise JobError(
            "InvalidJob",
            f"--device {chosen}: nothing can be computed there ({one_line(error, 200)}); name another, like cpu",
        ) from error


def _job(finished: Finished, data: Path, columns: Mapping[str, str], *, skip: bool) -> ResolvedJob:
    """Return the job that the model would be trained by on this data."""
    from unfreeze_api.resolve import resolve
    from unfreeze_api.spec.job import FineTuneJobSpec

    described = finished.described
    task = json.loads(json.dumps(described.task))
    name = task_type(task["type"]).member
    options = {key: value for key, value in (task.get(name) or {}).items() if key not in _ONLY_TRAINING}
    if "maxLength" in options and (longest := _tokens(finished.folder)):
        options["maxLength"] = min(options["maxLength"], longest)
    reads = [column.name for column in task_type(task["type"]).reads]
    if unknown := [name for name in columns if name not in reads]:
        known = ", ".join(reads)
        raise JobError("InvalidJob", f"--column {unknown[0]}: {task['type']} has no such field: its fields are {known}")
    own = _columns(task["type"], described.columns) | dict(columns)
    if "value" in columns:
        own.pop("values", None)
    spec = {
        "model": {"source": f"file://{finished.model.absolute()}"}
        | ({"quantization": described.quantization} if described.quantization else {}),
        "task": {"type": task["type"]} | ({name: options} if options else {}),
        "data": {
            "train": {"source": f"file://{data.absolute()}", "columns": own},
            "onError": "Skip" if skip else "Fail",
        },
        "strategy": {"type": "FeatureExtraction"},
        "output": {"destination": "file:///nowhere"},
    }
    try:
        asked = FineTuneJobSpec.model_validate(spec)
        semantics = Semantics.model_validate(described.semantics)
    except ValidationError as error:
        raise unreadable(finished.folder, causes(error)) from error
    job = resolve("asked", "default", asked, rendezvous_host="localhost")
    return job.model_copy(update={"semantics": semantics})


def _columns(task: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that a task reads, of those that a model says."""
    reads = {column.name for column in task_type(task).reads}
    found = {name: value for name, value in given.items() if name in reads}
    return {name: value for name, value in found.items() if not (name == "value" and "values" in found)}


def _tokens(folder: Path) -> int | None:
    """Return how many tokens of a text an export's tokenizer keeps."""
    try:
        most = json.loads((folder / "tokenizer_config.json").read_bytes()).get("model_max_length")
    except (OSError, ValueError, AttributeError):
        return None
    return int(most) if isinstance(most, int | float) and 0 < most <= 131_072 else None  # noqa: PLR2004 - maxLength's


def _where(job: ResolvedJob) -> str:
    return job.data.train.path


def _labelled(job: ResolvedJob, finished: Finished) -> tuple[Encoder[Any], Split]:
    """Return data with what is right of each sample."""
    kind = target_kind(job)
    source = reader_of(job)(job.data.train, _where(job), skip=job.data.on_error == "Skip")
    learned = _learned(job, finished)
    targets = learned.encode(read_targets(source, kind), source.where, source.numbers)
    return learned, Split(source, np.arange(len(targets)), targets)


def _unlabelled(job: ResolvedJob, finished: Finished) -> tuple[Encoder[Any], Split]:
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
    }
    if kind.__name__ not in made:
        raise JobError("InvalidModel", f"{finished.folder}: models of the task {job.task.type} cannot be asked yet")
    learned: Encoder[Any] = kind(made[kind.__name__], str(finished.folder))
    if learned.labels:
        learned.labels = list(names)
    if isinstance(learned, Numbers) and scale:
        learned.std, learned.mean = np.array(scale[0]), np.array(scale[1])
    return learned
