"""Values of a first job for some data: batch size, epochs, lengths, metric, each with its reason as a comment."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze_api.tasks import task_type
from unfreeze_api.tasks.base import is_multi_label
from unfreeze_trainer.commands.draft import Draft, absolute, job_of
from unfreeze_trainer.commands.surveyed import Survey
from unfreeze_trainer.data.split_names import SPLIT_WORDS

_STEPS = 1000
"""Of the optimizer, which a head needs."""
_BATCHES = ((400, 8), (2000, 16))
"""Batch size below so many training samples; otherwise 32."""
_EPOCHS = 3, 10
_LONGEST = 512
"""Tokens of a text that are read at most, unless somebody says so: more costs memory."""
_ROUND = 8
_IMBALANCED = 3
"""How many times as often as the mean label the most frequent one stands there, from where labels are measured alike."""
_MISSING_MODEL = "file:///PATH/TO/MODEL"
_FOLDER = "  # a folder with config.json, weights and tokenizer"
_PLAIN = re.compile(r"[A-Za-z/_]([\w./:-]*[\w./-])?")  # a colon at the end makes it a key
_LENGTHS = {"CausalLM": "", "Seq2SeqLM": "maxSourceLength", "SpeechRecognition": ""}
"""What says how long texts are read, where that is not maxLength; none where samples are longer than what is said in them."""
_SHARD = re.compile(r"\d+-of-\d+$")
_NO_NAMES = frozenset({*SPLIT_WORDS, "data", "metadata"})
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


@dataclass(frozen=True)
class Chosen:
    """A job: lines of YAML, each value with its comment."""

    lines: list[str]

    def to_yaml(self) -> str:
        """Return the text of the file."""
        return "\n".join(self.lines) + "\n"


_HEAD = (
    "    # The head alone is trained first, then more of the model as long as the validation data says that it is worth it, with",
    "    # learning rates that a short test finds. For a fast look at the head alone: type: FeatureExtraction. With an end to its",
    "    # time: auto: {budget: {seconds: 1800}}.",
    "    type: Auto",
)
_ALL = (
    "    # There is no head that could be trained alone. If it overfits, try an adapter, LoRA, or PartialFineTuning.",
    "    type: FullFineTuning",
    "    learningRate: {backbone: 3.0e-5}",
)
_PROJECTIONS = (
    "    # What brings both towers together is trained alone: fast, and hard to overfit. If it falls short, try FullFineTuning with",
    "    # learningRate: {head: 1.0e-4, backbone: 1.0e-5}, at first with imageText: {imageTower: Frozen}.",
    "    type: FeatureExtraction",
    "    learningRate: {head: 1.0e-4}",
)
_HEADS = (
    "    # The heads alone are trained; what the encoders give is computed once. If it falls short, try more encoders, projection: MLP,",
    "    # or classNames: true where an encoder of pictures has a classifier.",
    "    type: FeatureExtraction",
    "    learningRate: {head: 1.0e-3}",
)
_PROJECTOR = (
    "    # The projector alone is trained: what the encoder gives is computed once, and the language model stays as it is. If it falls",
    "    # short, try LinearProbeThenFineTune beside adapter: {type: LoRA}, which goes on with the language model.",
    "    type: FeatureExtraction",
    "    learningRate: {head: 1.0e-3}",
)
_COMPARED, _AT_ONCE = 128, 16
"""Samples of a step that are compared with each other, and those of them that are computed at a time."""


_COMPARED_FROZEN, _EPOCHS_FROZEN = 512, 60
"""The same where encoders compute once, and how often they are read: a step costs little."""


def choose(
    drafted: Draft,
    found: Survey,
    *,
    model: Path | str | None,
    output: Path,
    towers: Sequence[tuple[str, Path | None]] = (),
) -> Chosen:
    """Return a first job for some data.

    Parameters
    ----------
    drafted, found
        What lies there, and what a survey of it says.
    model
        The model's folder, or its source where that is no folder; a place for it where None.
    towers
        Modality and folder of each of several encoders; a place for one where None.
    output
        The file that is to be written: the run's folder lies beside it.
    """
    name = _name(drafted.layout.train, output)
    source = model if isinstance(model, str) else f"file://{absolute(model)}" if model else _MISSING_MODEL
    train = found.splits.get("train")
    samples = train.samples if train else found.sources["train"].rows
    batch = min(max(1, samples), next((size for limit, size in _BATCHES if samples < limit), 32))
    task = task_type(drafted.guess.task)
    compares = task.joins and not task.describes
    if compares:
        batch = min(max(1, samples), _COMPARED_FROZEN if towers else _COMPARED)
    most = _EPOCHS_FROZEN if towers and compares else _EPOCHS[1]
    strategy = (
        _ALL
        if task.no_head
        else _PROJECTOR
        if task.describes
        else _HEADS
        if towers
        else _PROJECTIONS
        if task.joins
        else _HEAD
    )
    epochs = min(max(math.ceil(_STEPS * batch / max(1, samples)), _EPOCHS[0]), most)
    lines = [
        *(f"# {' '.join(line.split())}" for line in drafted.said),
        "# Paths are those of this machine; in a cluster models, data and results lie on claims: pvc://CLAIM/PATH.",
        "apiVersion: unfreeze.dev/v1alpha1",
        "kind: FineTuneJob",
        "metadata:",
        f"  name: {_scalar(name)}",
        "spec:",
        "  model:",
        *(_towers(towers) or [f"    source: {_scalar(source)}" + ("" if model else _FOLDER)]),
        "  task:",
        *_task(drafted, found),
        "  data:",
        *_data(drafted, found),
        "  strategy:",
        *strategy,
        "  training:",
        f"    batchSize: {batch}  # {samples:,} samples to train on: {math.ceil(samples / batch):,} steps an epoch",
        *_parts(batch if compares else 0),
        f"    epochs: {epochs}  # about {math.ceil(samples / batch) * epochs:,} steps",
        *_metric(drafted, found),
        "    seed: 0",
        "  output:",
        f"    destination: {_scalar(f'file://{_destination(drafted, output, name)}')}  # checkpoints, the model and report.json",
    ]
    return Chosen(lines)


def _towers(towers: Sequence[tuple[str, Path | None]]) -> list[str]:
    """Return the lines of several encoders."""
    each = [
        (one, _scalar(f"file://{absolute(folder)}" if folder else f"{_MISSING_MODEL}/{one}"), folder)
        for one, folder in towers
    ]
    lines = [
        f"      - {{modality: {one}, source: {source}}}{'' if folder else _FOLDER}" for one, source, folder in each
    ]
    return ["    towers:", *lines] if lines else []


def _parts(batch: int) -> Iterator[str]:
    """Yield what has a batch that is compared as a whole computed in parts."""
    if batch > _AT_ONCE:
        parts = math.ceil(batch / _AT_ONCE)
        yield f"    gradientAccumulationSteps: {parts}  # each sample is compared with all others of its step, {_AT_ONCE} are in memory at a time"


def _name(train: Path, output: Path) -> str:
    """Return a name for the job, from that of the data without its split: lower case letters, digits and hyphens."""
    place = absolute(train)
    named = (place.stem if place.is_file() else place.name, *(folder.name for folder in place.parents[:2]), output.stem)
    for stem in named:
        words = [word for word in re.findall(r"[a-z0-9]+", _SHARD.sub("", stem.lower())) if word not in _NO_NAMES]
        if words:
            name = "-".join(words)
            return (name if name[0].isalpha() else f"job-{name}")[:50].strip("-")
    return "job"


def _destination(drafted: Draft, output: Path, name: str) -> Path:
    """Return a folder of the run's own beside the job file, or beside the data where these lie around it."""
    folder = absolute(output).parent
    for source in drafted.layout.splits.values():
        if source.is_dir() and folder.is_relative_to(absolute(source)):
            folder = absolute(source).parent
    return folder / f"{name}-run"


def _task(drafted: Draft, found: Survey) -> Iterator[str]:
    guess = drafted.guess
    options: dict[str, tuple[Any, str]] = {name: (value, "") for name, value in guess.options.items()}
    tokens = [split.lengths["tokens"] for split in found.splits.values() if "tokens" in split.lengths]
    option = _LENGTHS.get(guess.task, "maxLength")
    if tokens and option:
        most, usual = max(one.most for one in tokens), max(one.most_have for one in tokens)
        wanted = most if most <= _LONGEST / 4 else min(usual, _LONGEST)
        length = max(_ROUND, math.ceil(wanted / _ROUND) * _ROUND)
        cut = "none is cut" if length >= most else f"longer ones are cut, the longest has {most:,.0f}"
        options[option] = (length, f"tokens; of 100 texts 95 have at most {usual:,.0f}: {cut}")
    yield f"    type: {guess.task}"
    if options:
        yield f"    {task_type(guess.task).member}:"
    for name, (value, why) in options.items():
        yield f"      {name}: {_scalar(value)}" + (f"  # {why}" if why else "")


def _data(drafted: Draft, found: Survey) -> Iterator[str]:
    data = drafted.data()
    for name in ("train", "validation", "test"):
        part = data.get(name)
        if part is None:
            continue
        yield f"    {name}:"
        if "fraction" in part:
            yield f"      fraction: {part['fraction']}  # of the training data, labels' shares kept, drawn by training.seed"
            continue
        yield f"      source: {_scalar(part['source'])}"
        if columns := part.get("columns"):
            yield f"      columns: {{{', '.join(f'{key}: {_scalar(value)}' for key, value in columns.items())}}}"
    if left_out := sum(source.left_out for source in found.sources.values()):
        yield f"    onError: Skip  # {left_out:,} rows or files cannot be read and are left out; Fail ends the job at the first"
    if "test" not in data:
        yield "    # test: {source: ...}  # a table or folder of its own tells how good the model is; validation flatters it"


def _metric(drafted: Draft, found: Survey) -> Iterator[str]:
    """Yield the metric where another one than the default suits imbalanced labels."""
    train = found.splits.get("train")
    counts = [count for count in train.labels.values() if count] if train else []
    names = [metric.name for metric in task_type(drafted.guess.task).metrics]
    multi = is_multi_label(job_of(drafted).task.options)
    if counts and not multi and "macroF1" in names and max(counts) > _IMBALANCED * sum(counts) / len(counts):
        yield "    metric: macroF1  # the labels are imbalanced, and it counts them alike"


def _scalar(value: object) -> str:
    """Return a value as YAML reads it, on one line."""
    text = str(value)
    if isinstance(value, str) and _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    quoted = json.dumps(value, ensure_ascii=False)  # YAML breaks lines at more characters, and joins no halves of them
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in quoted)
