"""transformers: Whisper with its decoder, which writes what it hears."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.libraries.transformers_audio import TransformersAudio
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.causal_lm import GENERATION, stop_tokens
from unfreeze_trainer.models.export import Example, Plain
from unfreeze_trainer.models.folders import tokenizer_files
from unfreeze_trainer.models.speech import AUTO, Prompt, load_speech_config, load_speech_model, speech_prompt
from unfreeze_trainer.models.text import load_tokenizer

_TOKENIZER = "WhisperTokenizer"
_LOGITS = (
    '__import__("torch").stack([model(input_features=processor(wave.numpy(), '
    'sampling_rate=processor.feature_extractor.sampling_rate, return_tensors="pt").input_features,'
    ' decoder_input_ids=__import__("torch").tensor([ids])).logits[0, -1] for wave, ids in inputs])'
)
"""Expression for the logits after the last token of each sample: a clip, and ids of what the decoder reads."""


class TransformersSpeech(TransformersAudio):
    """A folder of transformers, with its feature extractor and tokenizer; outputs are (samples, length, tokens of the vocabulary).

    Parameters
    ----------
    job
        Its model, adapter and seed count.
    max_seconds
        Kept of each clip; None for what the model takes.
    language
        Of the texts; None for what the model's files say.
    """

    headless = True

    def __init__(self, job: ResolvedJob, max_seconds: float | None, language: str | None) -> None:
        super().__init__(job, max_seconds)
        config = load_speech_config(self.path, self.where)
        tokenizer_files(self.path, self.where, ())
        self.tokenizer = load_tokenizer(self.path, self.where)
        if type(self.tokenizer).__name__ != _TOKENIZER:
            raise JobError(
                "InvalidModel",
                f"{self.where}: the folder's tokenizer is a {type(self.tokenizer).__name__}, and this model's is a {_TOKENIZER}: copy the"
                " tokenizer's files there that the model was pretrained with",
            )
        self._tokenizer_files = tokenizer_files(self.path, self.where, type(self.tokenizer).vocab_files_names.values())
        field = f"spec.task.{job.task.kind.member}.language"
        self.prompt: Prompt = speech_prompt(self.path, self.where, language, field=field)
        self.places, self.rows = int(config.max_target_positions), int(config.vocab_size)
        """Tokens that the decoder reads at most, and those that it has embeddings for."""

    def _loaded_config(self) -> Any:
        return load_speech_config(self.path, self.where)

    @cached_property
    def stops(self) -> list[int]:
        """Tokens at which the model ends what it says."""
        return stop_tokens(self.path, self.where, self.tokenizer)

    def files(self) -> list[str]:
        """Return the names of the files in the model's folder that are loaded."""
        return super().files() + self._tokenizer_files + [GENERATION] * Path(self.path, GENERATION).is_file()

    def build(self) -> LoadedModel:
        """Load the model; the same weights on every rank, new ones are drawn from training.seed."""
        module = load_speech_model(
            self.path,
            self.where,
            self.prompt,
            positions=self.hears.positions,
            random=self._random,
            seed=self.job.training.seed,
        )
        return self._with_adapter(module, ())

    def own_head(self) -> None:
        """Return None: its own head is the one that it has."""

    def forward(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of each token of the texts, (samples, length, tokens of the vocabulary)."""
        logits: Tensor = module(**inputs, use_cache=False).logits
        return logits

    def _plain(self, folder: str, example: Example) -> Plain:
        place = json.dumps(folder)
        load = (
            f"{example.imports}\nfrom transformers import {AUTO}, AutoProcessor\n\n"
            f"model = {AUTO}.from_pretrained({place}).eval()\n"
            f"processor = AutoProcessor.from_pretrained({place})\n"
        )
        return Plain(self.name, load, self._predict(example), _LOGITS, "[]")

    def _plain_adapter(self, folder: str, base: str, example: Example) -> Plain:
        options = "dtype=torch.float32"
        if self.hears.positions is not None:  # the class draws its positions as Whisper's are
            options += f", max_source_positions={self.hears.positions}, ignore_mismatched_sizes=True"
        load = (
            f"{example.imports}\nimport torch\nfrom transformers import {AUTO}, AutoProcessor\n\n"
            f"base = {AUTO}.from_pretrained(\n    {json.dumps(base)}, {options}\n)\n"
            f"processor = AutoProcessor.from_pretrained({json.dumps(folder)})\n\n"
            f"{self._adapter_lines(folder)}\n"
        )
        return Plain(self._adapter_library, load, self._predict(example), _LOGITS, "[]")

    def _predict(self, example: Example) -> str:
        said = ""
        if self.prompt.language:
            said = f", language={json.dumps(self.prompt.language)}, task={json.dumps(self.prompt.task)}"
        return (
            f"{example.before}"
            f'inputs = processor({example.value}, sampling_rate={self.hears.extractor.sampling_rate}, return_tensors="pt")\n'
            f"said = model.generate(inputs.input_features{said})\n"
            "print(processor.decode(said[0], skip_special_tokens=True).strip())"
        )
