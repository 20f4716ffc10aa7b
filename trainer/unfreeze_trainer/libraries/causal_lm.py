"""transformers: decoders, which give the next token of a text."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.spec.quantization import QuantizationSpec
from unfreeze_trainer.libraries.base import Head
from unfreeze_trainer.libraries.transformers import Transformers
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.causal_lm import GENERATION, load_language_model, require_causal, stop_tokens
from unfreeze_trainer.models.experts import require_layers
from unfreeze_trainer.models.export import Example, Plain
from unfreeze_trainer.models.packing import require_apart
from unfreeze_trainer.models.places import at_places, only_at
from unfreeze_trainer.models.quantized import config_options, load_quantized
from unfreeze_trainer.models.tied import output_layer


class CausalLanguageModel(Transformers):
    """A folder of transformers, with its tokenizer; outputs are (samples, length, tokens of the vocabulary).

    Parameters
    ----------
    job
        Its model, adapter and seed count.
    answers
        Whether people ask it by messages, and not by the beginning of a text.
    packs
        Whether samples share rows.
    """

    auto = "AutoModelForCausalLM"
    reads_one_place = False
    headless = True
    last_logits = '__import__("torch").stack([model(input_ids=__import__("torch").tensor([ids])).logits[0, -1] for ids in inputs])'
    """Expression for the logits after the last token of each sample, which are given as token ids."""

    def __init__(self, job: ResolvedJob, *, answers: bool, packs: bool = False) -> None:
        super().__init__(job)
        # What pools the tokens of a text has no part in it.
        self._pooling, self._pooling_files = None, []
        self._answers, self._packs = answers, packs
        self._open_tokenizer()

    def open(self, head: Head) -> None:
        """Take what the data says; the tokenizer was needed to read them."""
        self.head = head

    @cached_property
    def stops(self) -> list[int]:
        """Tokens at which the model ends what it says."""
        return stop_tokens(self.path, self.where, self.tokenizer)

    def files(self) -> list[str]:
        """Return the names of the files in the model's folder that are loaded."""
        return super().files() + [GENERATION] * Path(self.path, GENERATION).is_file()

    def _build(self, quantization: QuantizationSpec | None) -> LoadedModel:
        module = load_language_model(
            self.path, self.where, auto=self.auto, random=self._random, seed=self.job.training.seed
        )
        if self.auto == "AutoModelForCausalLM":
            require_causal(module, self.where)
        # A cache is of no use here, and takes memory.
        takes = inspect.signature(module.forward).parameters
        self._options = {"use_cache": False} if "use_cache" in takes else {}
        # Then its output layer comes last, and takes whatever it is given.
        self._chooses = "logits_to_keep" in takes and output_layer(module) is not None
        if self._packs:
            require_apart(module, where=self.where, field=f"spec.task.{self.job.task.kind.member}.packing")
        if not quantization:
            return self._with_adapter(module, ())
        if self._reaches_experts:
            require_layers(module, (), quantization, self.where)
        self._kept = [name for name, part in module.named_modules() if part is output_layer(module)]
        quantized = load_quantized(module, (), self.path, self.where, quantization, kept=self._kept)
        return self._from_rounded(quantized, module, ())

    def own_head(self) -> None:
        """Return None: its own head is the one that it has."""

    def forward(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of each token's next one, (samples, length, tokens of the vocabulary)."""
        logits: Tensor = module(**inputs, **self._options).logits
        return logits[:, -inputs["input_ids"].shape[1] :]  # a prompt stands before the text

    def forward_at(self, module: nn.Module, inputs: Mapping[str, Tensor], places: Tensor) -> Tensor:
        """Return the logits of the next token at some places, (places, tokens of the vocabulary).

        `places` are row and column of each, int64 of shape (places, 2).
        """
        length = inputs["input_ids"].shape[1]
        if not self._chooses:
            return at_places(self.forward(module, inputs), places, length)
        with only_at(module, places, length):
            logits: Tensor = module(**inputs, **self._options).logits
        return logits

    def _plain(self, folder: str, example: Example) -> Plain:
        place = json.dumps(folder)
        load = (
            f"from transformers import {self.auto}, AutoTokenizer\n\n"
            f"model = {self.auto}.from_pretrained({place}).eval()\n"
            f"tokenizer = AutoTokenizer.from_pretrained({place})\n"
        )
        return Plain(self.name, load, self._predict(example), self.last_logits, "[]")

    def _plain_adapter(self, folder: str, base: str, example: Example) -> Plain:
        # In the type of its file, often bfloat16, a base would give other logits than the one that was trained on.
        options, imports = "dtype=torch.float32", [self.auto, "AutoTokenizer"]
        if spec := self.job.model.quantization:
            values = ", ".join(f"{name}={value!r}" for name, value in config_options(spec, self._kept).items())
            options += f", quantization_config=BitsAndBytesConfig({values})"
            imports.append("BitsAndBytesConfig")
        load = (
            f"import torch\nfrom transformers import {', '.join(sorted(imports))}\n\n"
            f"base = {self.auto}.from_pretrained(\n    {json.dumps(base)}, {options}\n)\n"
            f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(folder)})\n\n"
            f"{self._adapter_lines(folder)}\n"
        )
        return Plain(self._adapter_library, load, self._predict(example), self.last_logits, "[]")

    def _predict(self, example: Example) -> str:
        if not self._answers:
            return (
                f'inputs = tokenizer({example.value}, return_tensors="pt")\n'
                "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0], skip_special_tokens=True))"
            )
        return (
            f'messages = [{{"role": "user", "content": {example.value}}}]\n'
            "inputs = tokenizer.apply_chat_template(\n"
            '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"\n'
            ")\n"
            'said = model.generate(**inputs, max_new_tokens=64)[0, inputs["input_ids"].shape[1] :]\n'
            "print(tokenizer.decode(said, skip_special_tokens=True))"
        )
