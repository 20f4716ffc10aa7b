"""Text classification: a table of texts and labels, a transformers model."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from unfreeze_api.resolve import ResolvedJob
from unfreeze_api.spec.adapter import LoraSpec
from unfreeze_api.spec.quantization import QuantizationSpec
from unfreeze_api.tasks.text_classification import TextClassificationSpec
from unfreeze_trainer.data.samples import Source, read_splits, read_texts
from unfreeze_trainer.data.tokens import TextError, Tokens
from unfreeze_trainer.errors import JobError, quoted
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.adapters.targets import whole_modules
from unfreeze_trainer.models.folders import check_folder, tokenizer_files
from unfreeze_trainer.models.quantized import config_options, in_float32, load_quantized, start_from_rounding
from unfreeze_trainer.models.text import (
    guessed_length,
    load_text_model,
    load_tokenizer,
    pad_as_the_model,
    pools_by_mean,
    text_limits,
    usable_length,
)
from unfreeze_trainer.tasks.base import Batch, ExportKind, Task

logger = logging.getLogger(__name__)


class TextClassification(Task):
    """Opens the data and the model folder of a job; texts are tokenised when a split is first used."""

    _library = "transformers"

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(TextClassificationSpec)
        assert options is not None
        self._random = job.model.initialization == "Random"
        config = check_folder(job.model.path, job.model.source, library="transformers", weights=not self._random)
        super().__init__(job, *read_splits(job, partial(read_texts, skip=job.data.on_error == "Skip")))
        self._where = f"spec.model.source {job.model.source}"
        tokenizer_files(job.model.path, self._where, ())
        self._tokenizer = load_tokenizer(job.model.path, self._where)
        named = type(self._tokenizer).vocab_files_names.values()
        self._tokenizer_files = tokenizer_files(job.model.path, self._where, named)
        prompt = job.adapter.virtual_tokens if job.adapter else 0
        self._limits = text_limits(job.model.path, self._where)
        pad_as_the_model(self._tokenizer, self._limits)
        if job.semantics.positions == "Guessed":
            self._max_length = guessed_length(options.max_length, self._tokenizer, config, prompt=prompt)
        else:
            self._max_length = usable_length(options.max_length, self._tokenizer, self._limits, prompt=prompt)
        if self._max_length < options.max_length:
            logger.warning(
                "%s takes %d tokens of a text: longer ones are cut there, not at spec.task.textClassification.maxLength %d",
                self._where,
                self._max_length,
                options.max_length,
            )
        self._require_row(self._tokenizer.pad_token_id, "the padding token")
        self._tokens: dict[Source, Tokens] = {}
        if job.strategy.type in ("FeatureExtraction", "LinearProbeThenFineTune") and pools_by_mean(job.model.path):
            logger.warning(
                "%s: this sentence-transformers model pools by mean, transformers' classifier reads what its own"
                " architecture reads, often the first token, which was never trained for it: a frozen backbone may do"
                " badly. Train some of its blocks (PartialFineTuning, GradualUnfreezing, FullFineTuning)",
                self._where,
            )

    def lengths(self, split: str) -> np.ndarray:
        """Return how many tokens each sample of a split has, int64 of shape (samples,)."""
        part = self._splits[split]
        return self._tokenized(part.source).lengths[part.rows]

    def name_of(self, split: str, index: int) -> str:
        """Return what a JobError's message calls a sample: source and row."""
        part = self._splits[split]
        return f"{part.source.where}, row {part.source.number(part.rows[index])}"

    @property
    def remedy(self) -> str:
        """What to do about a model that fails at the samples."""
        return (
            f"Look whether {self._where} holds a classifier that transformers trains on texts of {self._max_length} tokens"
            " (spec.task.textClassification.maxLength), or choose another model"
        )

    def build_model(self) -> LoadedModel:
        """Load the model; the same weights on every rank, new ones are drawn from training.seed."""
        return self._build(self.job.model.quantization)

    def _model_files(self) -> list[str]:
        return super()._model_files() + self._tokenizer_files

    def _build(self, quantization: QuantizationSpec | None) -> LoadedModel:
        module, head = load_text_model(
            self.job.model.path,
            self._where,
            self.labels,
            tokenizer=self._tokenizer,
            random=self._random,
            seed=self.job.training.seed,
        )
        if not quantization:
            return self._with_adapter(module, head)
        self._kept = whole_modules(module, head)
        quantized = load_quantized(module, head, self.job.model.path, self._where, quantization)
        loaded = self._with_adapter(quantized, head)
        lora = self.job.adapter and self.job.adapter.of(LoraSpec)
        if lora and lora.init_lora_weights == "LoftQ":
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
        split: str,
        batches: Iterable[Sequence[int]],
        epoch_seed: int | None,  # noqa: ARG002 - texts are not varied
    ) -> Iterator[tuple[Sequence[int], Batch]]:
        part = self._splits[split]
        tokens = self._tokenized(part.source)
        for indices in batches:
            if len(indices):
                yield indices, tokens.collate(part.rows[np.asarray(indices)])
            else:
                # The text of a sample, since a row without any token may give NaN.
                yield indices, tokens.collate(part.rows[:1])

    def _tokenized(self, source: Source) -> Tokens:
        if source not in self._tokens:
            try:
                tokens = Tokens(self._tokenizer, source.inputs, self._max_length)
            except TextError as error:
                message = f"{source.where}, row {source.number(error.row)}: the tokenizer fails at this text: {quoted(error)}. Correct or remove it"
                raise JobError("InvalidData", message) from error
            if self._limits.rows is not None and (found := tokens.first_beyond(self._limits.rows)):
                self._require_row(found[1], f"{source.where}, row {source.number(found[0])}: a token")
            self._tokens[source] = tokens
        return self._tokens[source]

    def _require_row(self, token: int, what: str) -> None:
        rows = self._limits.rows
        if rows is not None and token >= rows:
            raise JobError(
                "InvalidModel",
                f"{self._where}: {what} has the id {token} ({quoted(repr(self._tokenizer.convert_ids_to_tokens(token)))}), and the model"
                f" has embeddings for {rows} tokens: tokenizer and weights do not belong together. Use the tokenizer that"
                " the model was trained with, or resize the model's embeddings first",
            )

    def forward(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return logits of shape (samples, classes)."""
        return module(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits

    def tokens(self, batch: Mapping[str, Tensor]) -> int:
        """Return how many tokens that are not padding a batch has, without rows of padding."""
        return int(batch["attention_mask"][batch["labels"] >= 0].sum())

    def _save(self, module: Any, folder: Path) -> None:
        module.save_pretrained(folder)

    def _save_preprocessing(self, folder: Path) -> None:
        before, self._tokenizer.model_max_length = self._tokenizer.model_max_length, self._max_length
        try:
            self._tokenizer.save_pretrained(folder)  # who truncates with it cuts where the training did
        finally:
            self._tokenizer.model_max_length = before

    def usage(self, kind: ExportKind, folder: str, base: str) -> str:
        """Return the lines of Python that load an export and predict with it."""
        if kind != "Adapter":
            return (
                "from transformers import pipeline\n\n"
                f'classify = pipeline("text-classification", model={json.dumps(folder)}, truncation=True)\n'
                'print(classify("some text"))'
            )
        library, quantized = "from transformers import AutoModelForSequenceClassification, AutoTokenizer", ""
        if self._quantization:
            library = f"import torch\n{library}, BitsAndBytesConfig"
            options = ", ".join(f"{name}={value!r}" for name, value in self._quantization.items())
            quantized = f",\n    dtype=torch.float32, quantization_config=BitsAndBytesConfig({options})"
        return (
            f"{library}\n\n"
            f"labels = {self.labels}\n"
            "base = AutoModelForSequenceClassification.from_pretrained(\n"
            f"    {json.dumps(base)}, id2label=dict(enumerate(labels)), ignore_mismatched_sizes=True{quantized}\n"
            ")\n"
            f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(folder)})\n\n"
            f"{self._adapter_usage(folder)}\n\n"
            'inputs = tokenizer("some text", truncation=True, return_tensors="pt")\n'
            "print(labels[int(model(**inputs).logits.argmax())])"
        )

    def _plain_inputs(self, batch: Batch) -> dict[str, Any]:
        split = self._splits["validation"]
        texts = split.source.inputs.take(split.rows[: len(batch["labels"])]).to_pylist()
        return {"texts": texts, "max_length": self._max_length, "quantization": self._quantization}
