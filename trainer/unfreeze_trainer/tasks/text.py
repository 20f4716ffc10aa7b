"""Text classification: a table of texts and labels, a transformers model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from unfreeze_api.quantization import QuantizationSpec
from unfreeze_api.resolve import ResolvedJob
from unfreeze_trainer.data.samples import Source, Split, read_splits, read_texts
from unfreeze_trainer.data.tokens import Tokens
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.adapters.targets import whole_modules
from unfreeze_trainer.models.folders import check_folder
from unfreeze_trainer.models.quantized import config_options, in_float32, load_quantized, start_from_rounding
from unfreeze_trainer.models.text import load_text_model, load_tokenizer, pools_by_mean, usable_length
from unfreeze_trainer.tasks.base import Batch, ExportKind, Task

logger = logging.getLogger(__name__)


class TextClassification(Task):
    """Opens the data and the model folder of a job; texts are tokenised when a split is first used."""

    _library = "transformers"

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.text_classification
        assert options is not None
        self._random = job.model.initialization == "Random"
        config = check_folder(job.model.path, job.model.source, library="transformers", weights=not self._random)
        super().__init__(job, *read_splits(job, read_texts))
        self._where = f"spec.model.source {job.model.source}"
        self._tokenizer = load_tokenizer(job.model.path, self._where)
        prompt = job.adapter.virtual_tokens if job.adapter else 0
        self._max_length = usable_length(options.max_length, self._tokenizer, config, prompt=prompt)
        self._tokens: dict[Source, Tokens] = {}
        if job.strategy.type in ("FeatureExtraction", "LinearProbeThenFineTune") and pools_by_mean(job.model.path):
            logger.warning(
                "%s: this sentence-transformers model pools by mean, transformers' classifier reads what its own"
                " architecture reads, often the first token, which was never trained for it: a frozen backbone may do"
                " badly. Train some of its blocks (PartialFineTuning, GradualUnfreezing, FullFineTuning)",
                self._where,
            )

    def build_model(self) -> LoadedModel:
        """Load the model; the same weights on every rank, new ones are drawn from training.seed."""
        return self._build(self.job.model.quantization)

    def _build(self, quantization: QuantizationSpec | None) -> LoadedModel:
        module, head = load_text_model(
            self.job.model.path,
            self._where,
            self.labels,
            pad_token_id=self._tokenizer.pad_token_id,
            random=self._random,
            seed=self.job.training.seed,
        )
        if not quantization:
            return self._with_adapter(module, head)
        self._kept = whole_modules(module, head)
        quantized = load_quantized(module, head, self.job.model.path, self._where, quantization)
        loaded = self._with_adapter(quantized, head)
        if self.job.adapter and self.job.adapter.lora and self.job.adapter.lora.init_lora_weights == "LoftQ":
            start_from_rounding(loaded.module, module)
        return loaded

    def exportable(self, module: nn.Module, kind: ExportKind) -> nn.Module:
        """Return the module that an export of a kind is written from: of a quantised one, whole weights in float32."""
        if kind == "Adapter" or not self.job.model.quantization:
            return module
        return in_float32(module, self._build(None).module).eval()

    @property
    def _quantization(self) -> dict[str, Any]:
        spec = self.job.model.quantization
        return config_options(spec, self._kept) if spec else {}

    def _inputs(
        self,
        split: Split,
        batches: Iterable[Sequence[int]],
        epoch_seed: int | None,  # noqa: ARG002 - texts are not varied
    ) -> Iterator[tuple[Sequence[int], Batch]]:
        source = split.source
        if source not in self._tokens:
            self._tokens[source] = Tokens(self._tokenizer, source.inputs, self._max_length)
        tokens = self._tokens[source]
        for indices in batches:
            if len(indices):
                yield indices, tokens.collate(split.rows[np.asarray(indices)])
            else:
                # The text of a sample, since a row without any token may give NaN.
                yield indices, tokens.collate(split.rows[:1])

    def forward(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return logits of shape (samples, classes)."""
        return module(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits

    def tokens(self, batch: Mapping[str, Tensor]) -> int:
        """Return how many tokens that are not padding a batch has, without rows of padding."""
        return int(batch["attention_mask"][batch["labels"] >= 0].sum())

    def _save(self, module: Any, folder: Path) -> None:
        module.save_pretrained(folder)

    def _save_preprocessing(self, folder: Path) -> None:
        self._tokenizer.save_pretrained(folder)

    def _usage(self, kind: ExportKind) -> str:
        if kind == "Adapter":
            library = "from transformers import AutoModelForSequenceClassification, AutoTokenizer"
            quantized = ""
            if self._quantization:
                library = f"import torch\n{library}, BitsAndBytesConfig"
                options = ", ".join(f"{name}={value!r}" for name, value in self._quantization.items())
                quantized = f",\n    dtype=torch.float32, quantization_config=BitsAndBytesConfig({options})"
            return (
                f"{library}\n\n"
                f"labels = {self.labels}\n"
                "base = AutoModelForSequenceClassification.from_pretrained(\n"
                f"    BASE, num_labels=len(labels), ignore_mismatched_sizes=True{quantized}\n"
                ")\n"
                "tokenizer = AutoTokenizer.from_pretrained(FOLDER)\n\n"
                f"{self._adapter_usage()}"
            )
        return (
            "from transformers import pipeline\n\n"
            'classify = pipeline("text-classification", model=FOLDER)\n'
            'classify("some text")'
        )

    def _plain_inputs(self, batch: Batch) -> dict[str, Any]:
        split = self._splits["validation"]
        texts = split.source.inputs.take(split.rows[: len(batch["labels"])]).to_pylist()
        return {"texts": texts, "max_length": self._max_length, "quantization": self._quantization}
