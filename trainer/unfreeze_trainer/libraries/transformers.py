"""transformers: models that read text, with the head of a sequence classifier."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unfreeze_api.adapters.lora import LoraSpec
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.spec.adapter import PROMPTS
from unfreeze_api.spec.quantization import QuantizationSpec
from unfreeze_api.tasks import task_type
from unfreeze_trainer.libraries.base import ExportKind, Head, Library
from unfreeze_trainer.models import LoadedModel, pooled_layers
from unfreeze_trainer.models.adapters.targets import whole_modules
from unfreeze_trainer.models.experts import require_layers
from unfreeze_trainer.models.export import Example, Plain
from unfreeze_trainer.models.folders import tokenizer_files
from unfreeze_trainer.models.loading import open_config
from unfreeze_trainer.models.output_layer import require_output_layer, rescaled
from unfreeze_trainer.models.pooling import SCRIPT, chosen, files, write_script
from unfreeze_trainer.models.prompts import require_no_padding
from unfreeze_trainer.models.quantized import config_options, in_float32, load_quantized, start_from_rounding
from unfreeze_trainer.models.text import (
    Limits,
    load_text_model,
    load_tokenizer,
    pad_as_the_model,
    require_classifier,
    text_limits,
)

NAMED = "[{model}.config.id2label[i] for i in range(len({model}.config.id2label))]"
"""Expression for what each output stands for."""


class Transformers(Library):
    """A folder of transformers, with its tokenizer.

    Parameters
    ----------
    job
        Its model, adapter and seed count.
    pooling
        What the head reads, in the spec's words; None as Auto.
    """

    name = "transformers"
    auto = "AutoModelForSequenceClassification"
    """transformers' class that chooses the architecture's model."""
    reads_one_place = True
    """Whether the head reads one place of each text, or a mean, and not all tokens."""

    def __init__(self, job: ResolvedJob, pooling: str | None = None) -> None:
        super().__init__(job)
        of_base = job.semantics.pooling == "OfBase"
        self._pooling = chosen(pooling, self.path, self.where, of_base=of_base)
        self._pooling_files = files(self.path, self.where) if of_base else []

    def open(self, head: Head) -> None:
        """Take what the data says, and look at the tokenizer."""
        super().open(head)
        if not self._pooling:
            field = f"spec.task.{self.job.task.kind.member}.pooling" if self.reads_one_place else ""
            require_classifier(self.path, self.where, self.auto, field)
        self._open_tokenizer()

    def _open_tokenizer(self) -> None:
        tokenizer_files(self.path, self.where, ())
        self.tokenizer = load_tokenizer(self.path, self.where)
        self._tokenizer_files = tokenizer_files(self.path, self.where, type(self.tokenizer).vocab_files_names.values())
        pad_as_the_model(self.tokenizer, self.limits)

    @cached_property
    def limits(self) -> Limits:
        """What the model takes."""
        return text_limits(self.path, self.where)

    @property
    def mark(self) -> int | None:
        """Token that the head looks for at the end of each text, as those of T5's and BART's classes do; None where it looks for none."""
        if self._pooling or not self.reads_one_place or not open_config(self.path, self.where).is_encoder_decoder:
            return None
        token: int | None = self.tokenizer.eos_token_id
        return token

    def files(self) -> list[str]:
        """Return the names of the files in the model's folder that are loaded."""
        return super().files() + self._tokenizer_files + self._pooling_files

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
            pooling=self._pooling,
            scale=self.head.scale,
            auto=self.auto,
        )
        if self.head.scale:
            field = f"spec.task.{self.job.task.kind.member}"
            self._output = require_output_layer(module, head, len(self.head.outputs), self.where, field)
        if not quantization:
            loaded = self._with_adapter(module, head)
            adapter = self.job.adapter
            if self.reads_one_place and adapter and adapter.type in PROMPTS:
                where = {"where": self.where, "field": f"spec.task.{self.job.task.kind.member}"}
                require_no_padding(loaded.module, self.tokenizer, adapter=adapter.type, **where)
            return loaded
        if self._reaches_experts:
            require_layers(module, head, quantization, self.where)
        self._kept = whole_modules(module, head)
        return self._from_rounded(load_quantized(module, head, self.path, self.where, quantization), module, head)

    def _from_rounded(self, quantized: nn.Module, whole: nn.Module, head: Collection[str]) -> LoadedModel:
        """Divide a quantised model into blocks, and add an adapter, which may start from what rounding has changed of the whole."""
        loaded = self._with_adapter(quantized, head)
        lora = self.job.adapter and self.job.adapter.of(LoraSpec)
        if lora and lora.init_lora_weights == "LoftQ":
            start_from_rounding(loaded.module, whole)
        return loaded

    def forward(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs, of shape (samples, outputs)."""
        return module(**inputs).logits

    def exportable(self, module: nn.Module, kind: ExportKind) -> nn.Module:
        """Return the module that an export of a kind is written from: of a quantised one, whole weights in float32."""
        if kind == "Adapter" or not self.job.model.quantization:
            return module
        return in_float32(module, self._build(None).module).eval()

    def save(self, module: nn.Module, folder: Path, kind: ExportKind, *, initial: Callable[[], LoadedModel]) -> None:
        """Write the bare module, on the CPU; it is not changed. Parameters as of Library."""
        with rescaled(module, self._output, self.head.scale) if self.head.scale else nullcontext():
            super().save(module, folder, kind, initial=initial)
        if self._pooling:
            write_script(folder)
            if kind == "Adapter":  # a whole model says it itself
                self._describe(str(folder))

    def _describe(self, folder: str) -> None:
        """Write beside an adapter what the script makes the model of."""
        assert self._pooling is not None
        pooled_layers.describe(folder, self._pooling, self.head.outputs, self.head.problem_type)

    def _save(self, module: Any, folder: Path) -> None:
        if self._pooling:
            pooled_layers.save(module, str(folder))
        else:
            module.save_pretrained(folder)

    def _plain(self, folder: str, example: Example) -> Plain:
        place, script = json.dumps(folder), self._script(folder)
        inputs = f'{example.batch}, truncation=True, padding=True, return_tensors="pt"'
        if self.head.pipelined:
            load = f'from runpy import run_path\n\nclassify = {script}["classifier"]({place})'
            if not self._pooling:
                pipeline = json.dumps(task_type(self.job.task.type).pipeline)
                load = f"from transformers import pipeline\n\nclassify = pipeline({pipeline}, model={place}, truncation=True)"
            return Plain(
                self.name,
                load,
                f"print(classify({example.value}))",
                f"classify.model(**classify.tokenizer({inputs})).logits",
                NAMED.format(model="classify.model"),
            )
        imports, model = (
            "from runpy import run_path\n\nfrom transformers import AutoTokenizer",
            f'{script}["load"]({place})',
        )
        if not self._pooling:
            imports = f"from transformers import {self.auto}, AutoTokenizer"
            model = f"{self.auto}.from_pretrained({place}).eval()"
        return Plain(
            self.name,
            f"{imports}\n\n"
            f"model = {model}\n"
            f"tokenizer = AutoTokenizer.from_pretrained({place})\n"
            f"labels = {NAMED.format(model='model')}\n",
            self._predict(example),
            f"model(**tokenizer({inputs})).logits",
        )

    @staticmethod
    def _script(folder: str) -> str:
        """Return an expression for what pooled.py of an export defines."""
        return f"run_path({json.dumps(f'{folder}/{SCRIPT}')})"

    def _plain_adapter(self, folder: str, base: str, example: Example) -> Plain:
        place, imports = json.dumps(folder), ["AutoTokenizer"]
        options = (
            "" if self._pooling else f", id2label=dict(enumerate(labels)), ignore_mismatched_sizes=True{self._ids}"
        )
        if spec := self.job.model.quantization:
            values = ", ".join(f"{name}={value!r}" for name, value in config_options(spec, self._kept).items())
            options += f",\n    dtype=torch.float32, quantization_config=BitsAndBytesConfig({values})"
            imports.append("BitsAndBytesConfig")
        elif not self._pooling:  # its script does so itself
            options += self._in_float32
        if self._pooling:
            load = f'{self._script(folder)}["load_base"](\n    {json.dumps(base)}, {place}{options}\n)'
        else:
            load = f"{self.auto}.from_pretrained(\n    {json.dumps(base)}{options}\n)"
            imports.append(self.auto)
        library = f"from transformers import {', '.join(sorted(imports))}"
        lines = ["from runpy import run_path"] * bool(self._pooling) + ["import torch"] * bool(spec) + [library]
        return Plain(
            self._adapter_library,
            "\n".join(lines) + "\n\n"
            f"labels = {list(self.head.outputs)}\n"
            f"base = {load}\n"
            f"tokenizer = AutoTokenizer.from_pretrained({place})\n\n"
            f"{self._adapter_lines(folder)}\n",
            self._predict(example),
            f'model(**tokenizer({example.batch}, truncation=True, padding=True, return_tensors="pt")).logits',
        )

    @property
    def _ids(self) -> str:
        """Arguments of from_pretrained by which a base looks for the tokenizer's marks, as in training, where its own are others or none."""
        config = open_config(self.path, self.where)
        names = ["pad_token_id", *(["eos_token_id"] if config.is_encoder_decoder else [])]
        marks = {name: getattr(self.tokenizer, name) for name in names}
        others = {name: mark for name, mark in marks.items() if mark not in (None, getattr(config, name, None))}
        return "".join(f", {name}={mark}" for name, mark in others.items())

    def _predict(self, example: Example) -> str:
        answer = self.head.answer("model(**inputs).logits")
        arguments = example.arguments or example.value
        return f'inputs = tokenizer({arguments}, truncation=True, return_tensors="pt")\nprint({answer})'
