"""transformers: models that read audio, with the head of an audio classifier."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import ceil
from typing import Any

from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks import task_type
from unfreeze_trainer.libraries.base import Head, Library
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.audio import audio_input, layer_drops, load_audio_model, load_config
from unfreeze_trainer.models.export import Example, Plain
from unfreeze_trainer.models.folders import preprocessor_files

WHISPERS_POSITIONS, WHISPERS_OWN = 50, 1500
"""Positions of its encoder a second, and those that it has where its config says nothing."""
_CLASS = "AutoModelForAudioClassification"


class TransformersAudio(Library):
    """A folder of transformers, with its feature extractor.

    Parameters
    ----------
    job
        Its model, adapter and seed count.
    max_seconds
        Kept of each clip; None for what the model takes.
    """

    name = "transformers"

    def __init__(self, job: ResolvedJob, max_seconds: float | None) -> None:
        super().__init__(job)
        self._max_seconds = max_seconds

    @property
    def pads_all(self) -> bool:
        """Whether all clips are made as long as the model takes, which it can be made to take less of, and nobody has said how long."""
        return self._max_seconds is None and self.config.get("model_type") == "whisper"

    def shortened(self, longest: float) -> int | None:
        """Have the model take as many whole seconds as the longest clip lasts; return them, None where it takes no more anyway."""
        seconds = max(1, ceil(longest))
        if seconds * WHISPERS_POSITIONS >= self.config.get("max_source_positions", WHISPERS_OWN):
            return None
        self._max_seconds = seconds
        return seconds

    def open(self, head: Head) -> None:
        """Take what the data says, and look at the feature extractor."""
        super().open(head)
        self._hear()

    def _hear(self) -> None:
        self._extractor_files = preprocessor_files(self.path, self.where, says="sound", kind="feature extractor")
        config = self._loaded_config()
        self._layer_drops = layer_drops(config)
        field = f"spec.task.{self.job.task.kind.member}.maxSeconds"
        self.hears = audio_input(self.path, self.where, config, self._max_seconds, field=field)

    def _loaded_config(self) -> Any:
        """Return transformers' configuration; JobError InvalidModel where the model is none of this task's."""
        return load_config(self.path, self.where)

    def files(self) -> list[str]:
        """Return the names of the files in the model's folder that are loaded."""
        return super().files() + self._extractor_files

    def build(self) -> LoadedModel:
        """Load the model; the same weights on every rank, new ones are drawn from training.seed."""
        module, head = load_audio_model(
            self.path,
            self.where,
            self.head.outputs,
            positions=self.hears.positions,
            random=self._random,
            seed=self.job.training.seed,
            problem_type=self.head.problem_type,
        )
        return self._with_adapter(module, head)

    def forward(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs, of shape (samples, outputs)."""
        return module(**inputs).logits

    def _save(self, module: Any, folder: Any) -> None:
        quiet = layer_drops(module.config)
        module.config.update(self._layer_drops)
        try:
            module.save_pretrained(folder)
        finally:
            module.config.update(quiet)

    def _plain(self, folder: str, example: Example) -> Plain:
        place = json.dumps(folder)
        if self.head.pipelined:
            pipeline = json.dumps(task_type(self.job.task.type).pipeline)
            return Plain(
                self.name,
                f"{example.imports}\nfrom transformers import pipeline\n\nclassify = pipeline({pipeline}, model={place})",
                f"{example.before}print(classify({example.value}))",
                _outputs("classify.model", "classify.feature_extractor"),
                _names("classify.model"),
            )
        return Plain(
            self.name,
            f"{example.imports}\nfrom transformers import AutoFeatureExtractor, {_CLASS}\n\n"
            f"model = {_CLASS}.from_pretrained({place}).eval()\n"
            f"extractor = AutoFeatureExtractor.from_pretrained({place})\n"
            f"labels = {_names('model')}\n",
            self._predict(example),
            _outputs("model", "extractor"),
        )

    def _plain_adapter(self, folder: str, base: str, example: Example) -> Plain:
        options = f"id2label=dict(enumerate(labels)), ignore_mismatched_sizes=True{self._in_float32}"
        if self.hears.positions is not None:  # the class draws its positions as Whisper's are
            options += f", max_source_positions={self.hears.positions}"
        return Plain(
            self._adapter_library,
            f"{example.imports}\nfrom transformers import AutoFeatureExtractor, {_CLASS}\n\n"
            f"labels = {list(self.head.outputs)}\n"
            f"base = {_CLASS}.from_pretrained(\n    {json.dumps(base)}, {options}\n)\n"
            f"extractor = AutoFeatureExtractor.from_pretrained({json.dumps(folder)})\n\n"
            f"{self._adapter_lines(folder)}\n",
            self._predict(example),
            _outputs("model", "extractor"),
        )

    def _predict(self, example: Example) -> str:
        answer = self.head.answer("model(**inputs).logits")
        return f"{example.before}inputs = {_inputs('extractor', example.value)}\nprint({answer})"


def _inputs(extractor: str, wave: str) -> str:
    return f'{extractor}({wave}, sampling_rate={extractor}.sampling_rate, return_tensors="pt")'


def _outputs(model: str, extractor: str) -> str:
    """Return an expression for the outputs of `inputs`, tensors of one clip each: alone, as the lines give them."""
    each = f"{model}(**{_inputs(extractor, 'wave.numpy()')}).logits[0].tolist()"
    return f"inputs[0].new_tensor([{each} for wave in inputs])"


def _names(model: str) -> str:
    return f"[{model}.config.id2label[i] for i in range(len({model}.config.id2label))]"
