"""transformers: models that read text, with the head of a sequence classifier."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unfreeze_api.spec.adapter import LoraSpec
from unfreeze_api.spec.quantization import QuantizationSpec
from unfreeze_api.tasks import task_type
from unfreeze_trainer.libraries.base import ExportKind, Head, Library
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.adapters.targets import whole_modules
from unfreeze_trainer.models.export import Example, Plain
from unfreeze_trainer.models.folders import tokenizer_files
from unfreeze_trainer.models.quantized import config_options, in_float32, load_quantized, start_from_rounding
from unfreeze_trainer.models.text import (
    Limits,
    load_text_model,
    load_tokenizer,
    pad_as_the_model,
    pools_by_mean,
    text_limits,
)

log = logging.getLogger(__name__)

_NAMED = "[{model}.config.id2label[i] for i in range(len({model}.config.id2label))]"


class Transformers(Library):
    """A folder of transformers, with its tokenizer."""

    name = "transformers"

    def open(self, head: Head) -> None:
        """Take what the data has told, and look at the tokenizer."""
        super().open(head)
        tokenizer_files(self.path, self.where, ())
        self.tokenizer = load_tokenizer(self.path, self.where)
        self._tokenizer_files = tokenizer_files(self.path, self.where, type(self.tokenizer).vocab_files_names.values())
        pad_as_the_model(self.tokenizer, self.limits)
        frozen = self.job.strategy.type in ("FeatureExtraction", "LinearProbeThenFineTune")
        if frozen and pools_by_mean(self.path):
            log.warning(
                "%s: this sentence-transformers model pools by mean, transformers' classifier reads what its own"
                " architecture reads, often the first token, which was never trained for it: a frozen backbone may do"
                " badly. Train some of its blocks (PartialFineTuning, GradualUnfreezing, FullFineTuning)",
                self.where,
            )

    @cached_property
    def limits(self) -> Limits:
        """What the model takes."""
        return text_limits(self.path, self.where)

    def files(self) -> list[str]:
        """Return the names of the files in the model's folder that are loaded."""
        return super().files() + self._tokenizer_files

    def build(self) -> LoadedModel:
        """Load the model; the same weights on every rank, new ones are drawn from training.seed."""
        return self._build(self.job.model.quantization)

    def _build(self, quantization: QuantizationSpec | None) -> LoadedModel:
        module, head = load_text_model(
            self.path,
            self.where,
            self.head.outputs,
            tokenizer=self.tokenizer,
            random=self._random,
            seed=self.job.training.seed,
            problem_type=self.head.problem_type,
        )
        if not quantization:
            return self._with_adapter(module, head)
        self._kept = whole_modules(module, head)
        quantized = load_quantized(module, head, self.path, self.where, quantization)
        loaded = self._with_adapter(quantized, head)
        lora = self.job.adapter and self.job.adapter.of(LoraSpec)
        if lora and lora.init_lora_weights == "LoftQ":
            start_from_rounding(loaded.module, module)
        return loaded

    def forward(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs, of shape (samples, outputs)."""
        return module(**inputs).logits

    def exportable(self, module: nn.Module, kind: ExportKind) -> nn.Module:
        """Return the module that an export of a kind is written from: of a quantised one, whole weights in float32."""
        if kind == "Adapter" or not self.job.model.quantization:
            return module
        return in_float32(module, self._build(None).module).eval()

    def _save(self, module: Any, folder: Path) -> None:
        module.save_pretrained(folder)

    def _plain(self, folder: str, example: Example) -> Plain:
        place = json.dumps(folder)
        inputs = 'inputs, truncation=True, padding=True, return_tensors="pt"'
        if self.head.pipelined:
            pipeline = json.dumps(task_type(self.job.task.type).pipeline)
            return Plain(
                self.name,
                f"from transformers import pipeline\n\nclassify = pipeline({pipeline}, model={place}, truncation=True)",
                f"print(classify({example.value}))",
                f"classify.model(**classify.tokenizer({inputs})).logits",
                _NAMED.format(model="classify.model"),
            )
        return Plain(
            self.name,
            "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
            f"model = AutoModelForSequenceClassification.from_pretrained({place}).eval()\n"
            f"tokenizer = AutoTokenizer.from_pretrained({place})\n"
            f"labels = {_NAMED.format(model='model')}\n",
            self._predict(example),
            f"model(**tokenizer({inputs})).logits",
        )

    def _plain_adapter(self, folder: str, base: str, example: Example) -> Plain:
        library, quantized = "from transformers import AutoModelForSequenceClassification, AutoTokenizer", ""
        if spec := self.job.model.quantization:
            library = f"import torch\n{library}, BitsAndBytesConfig"
            options = ", ".join(f"{name}={value!r}" for name, value in config_options(spec, self._kept).items())
            quantized = f",\n    dtype=torch.float32, quantization_config=BitsAndBytesConfig({options})"
        return Plain(
            self._adapter_library,
            f"{library}\n\n"
            f"labels = {list(self.head.outputs)}\n"
            "base = AutoModelForSequenceClassification.from_pretrained(\n"
            f"    {json.dumps(base)}, id2label=dict(enumerate(labels)), ignore_mismatched_sizes=True{quantized}\n"
            ")\n"
            f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(folder)})\n\n"
            f"{self._adapter_lines(folder)}\n",
            self._predict(example),
            'model(**tokenizer(inputs, truncation=True, padding=True, return_tensors="pt")).logits',
        )

    def _predict(self, example: Example) -> str:
        answer = self.head.answer("model(**inputs).logits")
        return f'inputs = tokenizer({example.value}, truncation=True, return_tensors="pt")\nprint({answer})'
