"""A finished model, found and described: an export, a run folder, an adapter with its base, or any classifier of the libraries."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from unfreeze_api.tasks import TASKS
from unfreeze_trainer.errors import JobError, quoted
from unfreeze_trainer.exports.described import Described
from unfreeze_trainer.models.home import cached
from unfreeze_trainer.runs.destination import MARKER

_ADAPTERS = {"adapter_config.json": "PEFT", "bottleneck_config.json": "Bottleneck"}
"""Files that tell what kind of adapter lies in a folder."""
_LONGEST = 131_072
BY_WORDS = "Alignment"
"""The task whose exports tell classes by their names alone."""


@dataclass(frozen=True)
class Finished:
    """A model that can be asked."""

    folder: Path
    """Where its files lie."""
    base: Path | None
    """What an adapter is put onto; None of a whole model."""
    adapter: str | None
    """PEFT or Bottleneck; None of a whole model."""
    described: Described
    thresholds: dict[str, float]
    """Probability from which on a label is predicted, where a sample may have several and validation data told one."""

    @property
    def model(self) -> Path:
        """The folder that a library loads."""
        return self.base or self.folder


def find_model(path: Path, base: Path | None, *, measured: bool = False, by_words: bool = False) -> Finished:
    """Return the model at a path.

    Parameters
    ----------
    path
        An export, or a run's folder, of which the whole model is taken before the adapter.
    base
        The base of an adapter; else where the adapter says that it lies.
    measured
        Whether its loss is asked for, and no answers.
    by_words
        Whether it is to tell classes that are named now.

    Raises
    ------
    JobError
        InvalidModel: there is none, or it does not say what it is.
    """
    folder = next((inner for name in ("model", "adapter") if (inner := path / name).is_dir()), path)
    if folder == path and (path / "checkpoints").is_dir():
        raise JobError("InvalidModel", f"{path}: the run has not ended well yet: it has no model/ and no adapter/")
    adapter = next((kind for name, kind in _ADAPTERS.items() if (folder / name).is_file()), None)
    marker = _json(folder / MARKER)
    described, thresholds = _described(folder, marker) or _inferred(folder, adapter), _thresholds(folder, marker)
    mute = described.task["type"] in _NO_ANSWERS and not described.outputs
    if by_words and described.task["type"] != BY_WORDS:
        raise JobError(
            "InvalidJob",
            f"{folder}: its task is {described.task['type']}, and only exports of {BY_WORDS} tell classes that are named now: leave"
            " --class and --prompt out",
        )
    if mute and not by_words and not (measured and described.task["type"] in _MEASURED):
        raise no_answers(folder, described.task["type"])
    if adapter is None:
        _require_outputs(folder, described)
        return Finished(folder, None, None, described, thresholds)
    if adapter == "PEFT" and not (folder / "adapter_model.safetensors").is_file():  # PEFT would ask the hub for it
        raise JobError(
            "InvalidModel", f"{folder}: no adapter_model.safetensors beside adapter_config.json: copy it there"
        )
    file = next(name for name, kind in _ADAPTERS.items() if kind == adapter)
    config = _json(folder / file)
    said, revision = str(config.get("base_model_name_or_path") or ""), config.get("revision")
    named = base or Path(said)
    if base is None and not named.is_dir() and isinstance(revision, str):
        named = cached(said, revision) or named
    if not (named / "config.json").is_file():
        at = f", commit {revision} of a hub, whose cache here lacks it" if base is None and revision else ""
        raise JobError(
            "InvalidModel",
            f"{folder}: it is an adapter, and its base does not lie in {named}{at}: say where, by --base DIR",
        )
    return Finished(folder, named, adapter, described, thresholds)


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _described(folder: Path, marker: dict[str, Any]) -> Described | None:
    if "described" not in marker:
        return None
    try:
        found = Described.model_validate(marker["described"], extra="ignore")
    except ValidationError as error:
        raise unreadable(folder, ".".join(map(str, error.errors()[0]["loc"]))) from error
    if found.task.get("type") not in {task.name for task in TASKS}:
        raise unreadable(folder, "task.type")
    return found


def _thresholds(folder: Path, marker: dict[str, Any]) -> dict[str, float]:
    found = marker.get("thresholds", {})
    if not (
        isinstance(found, dict) and all(isinstance(each, int | float) and 0 <= each <= 1 for each in found.values())
    ):
        raise JobError(
            "InvalidModel",
            f"{folder / MARKER}: thresholds is no map of labels to probabilities: somebody has changed it; copy the export again",
        )
    return found


def _require_outputs(folder: Path, described: Described) -> None:
    """Raise InvalidModel where a whole model's configuration has other outputs than what stands beside it: its head would be drawn anew."""
    own = _named(_json(folder / "config.json"), _json(folder / "pooled_config.json"))
    if not own or not described.outputs or own == described.outputs:
        return
    raise JobError(
        "InvalidModel",
        f"{folder}: {MARKER} says that the model has {len(described.outputs)} outputs (described.outputs: {_some(described.outputs)}),"
        f" and its configuration {len(own)} ({_some(own)}): they are of two models, or somebody has changed one: copy the export again",
    )


def _some(names: list[str]) -> str:
    return quoted(", ".join(names[:5]) + (", ..." if len(names) > 5 else ""))  # noqa: PLR2004 - as many as one reads


_NO_ANSWERS = {
    "TextEmbedding": "vectors of texts, and no labels or numbers: load it as its README.md says, by sentence-transformers or pooled.py",
    BY_WORDS: "vectors of pictures, texts and sound, and no labels or numbers: load it as its README.md says, by bridge.py;"
    " unfreeze predict --class NAME --class NAME has it tell by words what pictures or clips show, and unfreeze evaluate measures its"
    " recall on a table of what belongs together, or by --prompt TEXT how well it tells the labels of pictures or clips",
    "ImageText": "how well pictures and texts belong together, and no labels or numbers: load it as its README.md says, by transformers'"
    " AutoModel and AutoProcessor, and give it texts to choose from. Trained with columns.className it tells these classes here;"
    " unfreeze evaluate measures its recall",
    "CausalLM": "texts, which go on as long as one likes, and no labels or numbers: load it as its README.md says, and generate; unfreeze"
    " evaluate measures its loss",
    "Seq2SeqLM": "texts, and no labels or numbers: load it as its README.md says, and generate; unfreeze evaluate measures its loss",
}
"""What models of tasks without labels or numbers give, and how they are asked."""
_MEASURED = ("CausalLM", "ImageText", "Seq2SeqLM", BY_WORDS)
"""Those of them whose loss on data can be measured."""


def no_answers(folder: Path, task: str) -> JobError:
    """Return the error of asking an export of a task without labels or numbers for them."""
    return JobError("InvalidModel", f"{folder}: its answers are {_NO_ANSWERS[task]}")


def unreadable(folder: Path, field: str) -> JobError:
    """Return the error of an export that says of itself what this version does not know."""
    return JobError(
        "InvalidModel",
        f"{folder / MARKER}: described.{field} cannot be read: a newer version of Unfreeze wrote it, or somebody has changed it",
    )


def _inferred(folder: Path, adapter: str | None) -> Described:
    """Return what the configuration of a whole model tells, where nothing describes it."""
    config, pooled = _json(folder / "config.json"), _json(folder / "pooled_config.json")
    if adapter or not config:
        what = "an adapter that does not say what it is of" if adapter else "no config.json lies here"
        raise JobError("InvalidModel", f"{folder}: {what}: name the folder of an export, or of a run")
    if (folder / "modules.json").is_file():
        raise no_answers(folder, "TextEmbedding")
    labels = _named(config, pooled)
    if "architecture" in config:
        return Described(task={"type": "ImageClassification"}, outputs=_outputs(folder, labels))
    problem = pooled.get("problem_type") or config.get("problem_type")
    kind = str((config.get("architectures") or [""])[0])
    if kind == "WhisperForConditionalGeneration" or kind.endswith("ForCTC"):
        return Described(task={"type": "SpeechRecognition"}, outputs=[])
    if mute := _mute(config, kind):
        raise no_answers(folder, mute)
    task = next((task for part, task in _TASKS.items() if part in kind), None)
    if task is None and pooled:
        task = "TextClassification"
    if task is None:
        raise JobError(
            "InvalidModel",
            f"{folder}: config.json says {kind or 'no class'} in architectures, which has no head that was trained to tell"
            f" labels: those are of classes named {', '.join(f'...{part}' for part in _TASKS)}",
        )
    if problem == "regression" and task == "TextClassification":
        task = "TextRegression"
    member = task[0].lower() + task[1:]
    options: dict[str, Any] = {"labels": "Multi"} if problem == "multi_label_classification" else {}
    if task.startswith(("Text", "Token")):
        options["maxLength"] = _LONGEST
    outputs = _outputs(folder, labels)
    scale = ([1.0] * len(outputs), [0.0] * len(outputs)) if task == "TextRegression" else None
    return Described(task={"type": task, member: options}, outputs=outputs, scale=scale)


def _mute(config: dict[str, Any], kind: str) -> str | None:
    """Return the task of a class of transformers whose models give no answers; None of others."""
    if kind.endswith(("ForCausalLM", "LMHeadModel")):
        return "CausalLM"
    if kind in ("CLIPModel", "SiglipModel"):
        return "ImageText"
    return "Seq2SeqLM" if _rewrites(config, kind) else None


def _rewrites(config: dict[str, Any], kind: str) -> bool:
    """Return whether a class of transformers is an encoder and a decoder of texts, and not of sound or pictures."""
    if config.get("is_encoder_decoder") is False:
        return False
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

    return MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.get(config.get("model_type", "")) == kind


def _named(config: dict[str, Any], pooled: dict[str, Any]) -> Any:
    """Return what a model's configuration says that its outputs stand for; nothing, or anything, where it does not."""
    if "architecture" in config:
        return (config.get("pretrained_cfg") or config).get("label_names") or config.get("label_names")
    named = config.get("id2label") or {}
    return pooled.get("labels") or [named[key] for key in sorted(named, key=int)]


_TASKS = {
    "ForSequenceClassification": "TextClassification",
    "ForTokenClassification": "TokenClassification",
    "ForAudioClassification": "AudioClassification",
    "ForImageClassification": "ImageClassification",
}
"""Tasks by a part of the name of a class of transformers."""


def _outputs(folder: Path, labels: Any) -> list[str]:
    if not isinstance(labels, list) or not labels:
        raise JobError(
            "InvalidModel", f"{folder}: nothing says what its outputs stand for: is it a base that was not trained yet?"
        )
    return [str(label) for label in labels]
