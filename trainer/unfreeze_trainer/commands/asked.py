"""A finished model with data that it is asked of, as the task that it was trained on, without training data."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import torch
from pydantic import ValidationError
from pydantic.alias_generators import to_snake
from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob, Semantics
from unfreeze_api.grammar.reading import causes
from unfreeze_api.tasks import task_type
from unfreeze_trainer.commands.asked_data import labelled_data, unlabelled_data
from unfreeze_trainer.commands.finished import BY_WORDS, Finished, unreadable
from unfreeze_trainer.data.samples import Split
from unfreeze_trainer.errors import JobError, one_line
from unfreeze_trainer.exports.thresholds import USUAL
from unfreeze_trainer.models.bridge_layers import CONFIG, WEIGHTS
from unfreeze_trainer.objectives.answers import AnyOf
from unfreeze_trainer.objectives.targets import Encoder
from unfreeze_trainer.runs.destination import MARKER

if TYPE_CHECKING:
    from unfreeze_trainer.tasks.composed import ComposedTask

SPLIT = "test"
"""What the task calls the data that a model is asked of."""
_CHUNK = 16_384
"""Samples among which those of alike length are put together."""
_ONLY_TRAINING = ("classWeights", "classWeightsByLabel", "labelSmoothing", "focalLoss", "sampling")
"""Options of a task that change what is learned alone."""


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
            import peft

            put = peft.PeftModel.from_pretrained
        elif self.finished.adapter:
            from unfreeze_trainer.models.adapters.bottleneck_layers import load as put
        else:
            return module.eval().to(self.device)
        try:
            module = put(module, folder)
        except (
            RuntimeError,
            ValueError,
            KeyError,
        ) as error:  # torch's and the libraries' words for weights of other shapes
            raise JobError(
                "InvalidModel",
                f"{folder}: the adapter does not fit its base {self.finished.base} with the {len(self.finished.described.outputs)}"
                f" outputs that {MARKER} names (described.outputs): {one_line(error)}. Name the base that it was trained on, by"
                " --base DIR, and copy the export again if somebody has changed it",
            ) from error
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
        batch_size = 1 if task.wide_outputs else batch_size
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


def tell_cut(task: ComposedTask, data: object) -> None:
    """Say on standard error how many clips a finished model hears the beginning of alone: training has made it as short as its own were."""
    if said := task.heard_in_part(SPLIT):
        click.echo(f"Warning: {data}: {said}, and the model does not hear what comes after", err=True)


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
    place = device_of(device)
    job = job_of(finished, data, columns, skip=skip)
    module = importlib.import_module(f"unfreeze_trainer.tasks.{to_snake(job.task.type)}")

    def read(task: ComposedTask) -> tuple[Encoder[Any], dict[str, Split]]:
        split = labelled_data(task.job, finished, task.modality) if labelled else unlabelled_data(task.job, finished)
        return split[0], dict.fromkeys(("train", "validation", SPLIT), split[1])

    kind = getattr(module, job.task.type)
    own = {"read": read, "beside": str(finished.folder) if finished.adapter else None}
    try:
        task = type(kind.__name__, (kind,), own)(job)
    except JobError as error:
        message = error.marked.replace("in spec.data.<part>.columns", "by --column FIELD=NAME")
        raise JobError(error.reason, message) from error
    return Asked(task, finished, place)


def decide(asked: Asked, threshold: float | None) -> None:
    """Have labels predicted, where a sample may have several, from a probability on; else from those that the export says.

    Raises
    ------
    JobError
        InvalidJob: a threshold, and the model has no such labels.
    """
    answers, message = asked.task.answers, asked.finished.thresholds
    if isinstance(answers, AnyOf):
        if threshold is not None or message:
            usual = USUAL if threshold is None else threshold
            chosen = message if threshold is None else {}
            answers.thresholds = np.array([chosen.get(name, usual) for name in answers.names])
    elif threshold is not None:
        raise JobError(
            "InvalidJob",
            f"--threshold {threshold:g}: {asked.finished.folder} does not predict several labels of a sample: leave it out",
        )


def device_of(name: str | None) -> torch.device:
    """Return a device on which something can be computed; JobError InvalidJob of one where nothing can."""
    chosen = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=chosen).tolist()
        return torch.device(chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # as torch says that it was built without one
        raise JobError(
            "InvalidJob",
            f"--device {chosen}: nothing can be computed there ({one_line(error, 200)}); name another, like cpu",
        ) from error


def job_of(finished: Finished, data: Path, columns: Mapping[str, str], *, skip: bool) -> ResolvedJob:
    """Return the job that the model would be trained by on this data; JobError InvalidJob of a column that its task has not."""
    from unfreeze_api.resolve import resolve
    from unfreeze_api.spec.job import FineTuneJobSpec

    described = finished.described
    task = json.loads(json.dumps(described.task))
    name = task_type(task["type"]).member
    options = {key: value for key, value in (task.get(name) or {}).items() if key not in _ONLY_TRAINING}
    if "maxLength" in options and (longest := _tokens(finished.folder)):
        options["maxLength"] = min(options["maxLength"], longest)
    if room := _beside_prompt(finished):
        options |= {key: min(options[key], room) for key in ("maxLength", "maxSourceLength") if key in options}
    reads = {column.name: column.many for column in task_type(task["type"]).reads}
    if unknown := [name for name in columns if name not in reads]:
        known = ", ".join(reads)
        raise JobError("InvalidJob", f"--column {unknown[0]}: {task['type']} has no such field: its fields are {known}")
    named = {name: value.split(",") if reads[name] else value for name, value in columns.items()}
    own = _columns(task["type"], described.columns) | named
    if columns.keys() & {"value", "values"}:
        own.pop("values" if "value" in columns else "value", None)
    base: dict[str, Any] = {"source": f"file://{finished.model.absolute()}"}
    if task["type"] == BY_WORDS:
        base = _encoders(finished.model.absolute(), options)
    elif task_type(task["type"]).describes:
        base = _towers(finished.model.absolute())
    spec = {
        "model": base | ({"quantization": described.quantization} if described.quantization else {}),
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
    update: dict[str, Any] = {"semantics": semantics}
    if not finished.adapter:  # a whole model holds float32: quantised once more it would lose what an adapter has added
        update["model"] = job.model.model_copy(update={"quantization": None})
    return job.model_copy(update=update)


def _towers(folder: Path) -> dict[str, Any]:
    """Return encoder and language model of an export of Captioning, as a job names them."""
    modality = next((one for one in ("Image", "Audio") if (folder / one.lower()).is_dir()), None)
    if modality is None:
        raise JobError("InvalidModel", f"{folder}: no folder image or audio lies here: copy the export again")
    if lost := [name for name in ("captioner.json", "projector.safetensors") if not (folder / name).is_file()]:
        raise JobError(  # a projector would be drawn anew
            "InvalidModel",
            f"{folder}: {' and '.join(lost)} {'is' if len(lost) == 1 else 'are'} missing: copy the export again",
        )
    return {"towers": [{"modality": one, "source": f"file://{folder / one.lower()}"} for one in (modality, "Text")]}


def _encoders(folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the encoders of an export of Alignment, as a job names them, whose heads go on; `options` are those that it says of its task."""
    held = bridge_of(folder)
    if not (folder / WEIGHTS).is_file():  # heads would be drawn anew, as below
        raise JobError("InvalidModel", f"{folder}: {WEIGHTS} is missing: copy the export again")
    said = {"projection": "Linear", "width": held["width"]} | dict(options)
    if (said["projection"], said["width"], bool(said.get("classNames"))) != (
        held["projection"],
        held["width"],
        "told" in held,
    ):
        raise unreadable(folder, "task.alignment")
    towers = held["towers"].items()
    return {
        "towers": [{"modality": one["modality"].title(), "source": f"file://{folder / key}"} for key, one in towers]
    }


def bridge_of(folder: Path) -> dict[str, Any]:
    """Return what an export of Alignment says of itself in bridge.json. JobError InvalidModel."""
    try:
        found: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise JobError("InvalidModel", f"{folder}: {CONFIG} cannot be read: copy the export again") from error
    return found


def _columns(task: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that a task reads, of those that a model says."""
    reads = {column.name for column in task_type(task).reads}
    found = {name: value for name, value in given.items() if name in reads}
    return {name: value for name, value in found.items() if not (name == "value" and "values" in found)}


def _beside_prompt(finished: Finished) -> int | None:
    """Return how many tokens of a text a model takes beside the vectors that an adapter puts before it; None where nothing limits them."""
    from unfreeze_trainer.models.text import text_limits

    try:
        config = json.loads((finished.folder / "adapter_config.json").read_bytes())
        prompt = int(config.get("num_virtual_tokens") or 0)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    positions = text_limits(str(finished.model), str(finished.model)).positions if prompt else None
    return None if positions is None else max(1, positions - prompt)


def _tokens(folder: Path) -> int | None:
    """Return how many tokens of a text an export's tokenizer keeps."""
    try:
        most = json.loads((folder / "tokenizer_config.json").read_bytes()).get("model_max_length")
    except (OSError, ValueError, AttributeError):
        return None
    return int(most) if isinstance(most, int | float) and 0 < most <= 131_072 else None  # noqa: PLR2004 - maxLength's
