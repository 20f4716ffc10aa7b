"""transformers: encoders of sound that spell what they hear (CTC)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.libraries.base import Head
from unfreeze_trainer.libraries.transformers_audio import TransformersAudio
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.ctc import (
    AUTO,
    Moments,
    Spelling,
    load_ctc_config,
    load_ctc_model,
    own_spelling,
    require_fitting,
    spelling_of,
    spells,
    vocabulary_files,
)
from unfreeze_trainer.models.export import Example, Plain

_LOGITS = (
    '__import__("torch").stack([model(**processor(wave.numpy(),'
    ' sampling_rate=processor.feature_extractor.sampling_rate, return_tensors="pt")).logits[0, 0] for wave in inputs])'
)
"""Expression for the logits at the first moment of each clip: the last one may be half padding, which is masked (wav2vec2-bert)."""


class TransformersCtc(TransformersAudio):
    """A folder of transformers, with its feature extractor; outputs are (samples, moments, characters of the vocabulary).

    Parameters
    ----------
    job
        Its model, adapter and seed count.
    max_seconds
        Kept of each clip; None for what the model takes.
    beside
        Folder of a finished adapter, whose vocabulary is taken; None for the base's.
    """

    def __init__(self, job: ResolvedJob, max_seconds: float | None, *, beside: str | None = None) -> None:
        super().__init__(job, max_seconds)
        self._config = load_ctc_config(self.path, self.where)
        self._hear()
        self.moments = Moments(self._config)
        self._vocabulary_files = vocabulary_files(self.path, self.where)
        self._spelling = own_spelling(beside or self.path, self.where, own=bool(self._vocabulary_files))
        if self._spelling:
            require_fitting(self._config, self._spelling, self.where)

    @property
    def spelling(self) -> Spelling:
        """The vocabulary; there is one once training texts have been read."""
        assert self._spelling is not None
        return self._spelling

    @property
    def outputs(self) -> int:
        """How many tokens the head tells apart."""
        return int(self._config.vocab_size) if spells(self._config, self.spelling) else len(self.spelling)

    def learn_spelling(self, texts: Iterable[str]) -> None:
        """Make a vocabulary of the characters of texts, unless there is one."""
        if self._spelling is None:
            self._spelling = spelling_of(texts)

    def open(self, head: Head) -> None:
        """Take what the data says: the feature extractor was needed to read them."""
        self.head = head

    def _loaded_config(self) -> Any:
        return load_ctc_config(self.path, self.where)

    def files(self) -> list[str]:
        """Return the names of the files in the model's folder that are loaded."""
        return super().files() + self._vocabulary_files

    def build(self) -> LoadedModel:
        """Load the model; the same weights on every rank, new ones are drawn from training.seed."""
        options: dict[str, Any] = {"random": self._random, "seed": self.job.training.seed}
        module, head = load_ctc_model(self.path, self.where, self.spelling, **options)
        return self._with_adapter(module, head)

    def without_output(self, token: int, what: str) -> JobError:
        """Return the error of a text with a token that the folder's head has no output for."""
        name = self.spelling.tokenizer.convert_ids_to_tokens(token)
        return JobError(
            "InvalidModel",
            f"{self.where}: {what} holds {name!r}, number {token} of the vocabulary, and the head has {self.outputs} outputs: they are of"
            " two models; copy the tokenizer's files there that the head was trained with",
        )

    def own_head(self) -> None:
        """Return None: what the base spelt is told by none of the gauges."""

    def forward(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of each moment, (samples, moments, characters of the vocabulary)."""
        logits: Tensor = module(**inputs).logits
        return logits

    def save_processor(self, folder: Path) -> None:
        """Write the vocabulary, and what joins it to the feature extractor."""
        from transformers import Wav2Vec2BertProcessor, Wav2Vec2Processor

        kind: Any = Wav2Vec2Processor if getattr(self._config, "conv_kernel", None) else Wav2Vec2BertProcessor
        kind(self.hears.extractor, self.spelling.tokenizer).save_pretrained(folder)

    def _plain(self, folder: str, example: Example) -> Plain:
        place = json.dumps(folder)
        load = (
            f"{example.imports}\nfrom transformers import {AUTO}, AutoProcessor\n\n"
            f"model = {AUTO}.from_pretrained({place}).eval()\n"
            f"processor = AutoProcessor.from_pretrained({place})\n"
        )
        return Plain(self.name, load, self._predict(example), _LOGITS, "[]")

    def _plain_adapter(self, folder: str, base: str, example: Example) -> Plain:
        options = f"dtype=torch.float32, vocab_size={self.outputs}, pad_token_id={self.spelling.blank}"
        load = (
            f"{example.imports}\nimport torch\nfrom transformers import {AUTO}, AutoProcessor\n\n"
            f"base = {AUTO}.from_pretrained(\n    {json.dumps(base)}, {options}, ignore_mismatched_sizes=True\n)\n"
            f"processor = AutoProcessor.from_pretrained({json.dumps(folder)})\n\n"
            f"{self._adapter_lines(folder)}\n"
        )
        return Plain(self._adapter_library, load, self._predict(example), _LOGITS, "[]")

    def _predict(self, example: Example) -> str:
        return (
            f"{example.before}"
            f'inputs = processor({example.value}, sampling_rate={self.hears.extractor.sampling_rate}, return_tensors="pt")\n'
            "said = model(**inputs).logits.argmax(-1)\n"
            "print(processor.batch_decode(said)[0])"
        )
