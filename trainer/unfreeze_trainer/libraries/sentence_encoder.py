"""transformers: models that make a vector of a text, exported as sentence-transformers has them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.spec.quantization import QuantizationSpec
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.libraries.base import ExportKind
from unfreeze_trainer.libraries.transformers import Transformers
from unfreeze_trainer.models import LoadedModel, pooled_layers
from unfreeze_trainer.models.encoder import encoder_width, load_encoder
from unfreeze_trainer.models.export import Example, Plain
from unfreeze_trainer.models.pooling import chosen, encoder_files, normalizes
from unfreeze_trainer.models.quantized import config_options, load_quantized

_LIBRARY = "sentence-transformers"


class SentenceEncoder(Transformers):
    """A folder of transformers or sentence-transformers, with its tokenizer; outputs are (texts, width).

    Parameters
    ----------
    job
        Its model, adapter and seed count.
    pooling
        How the vectors of tokens become one, in the spec's words; None as Auto.

    Raises
    ------
    JobError
        InvalidModel: the base pools or goes on in a way that an export could not say.
    """

    headless = True

    def __init__(self, job: ResolvedJob, pooling: str | None = None) -> None:
        super().__init__(job, pooling)
        self._modes = self._pooling = chosen(pooling, self.path, self.where, of_base=True) or ("mean",)
        self._pooling_files = encoder_files(self.path, self.where)
        if pooled_layers.ATTENTION in self._modes:
            raise JobError(
                "InvalidModel",
                f"{self.where}: its pooling has learned weights, which {_LIBRARY} does not know: set"
                f" spec.task.{job.task.kind.member}.pooling to Mean",
            )
        self._normalize = normalizes(self.path, self.where)

    @cached_property
    def width(self) -> int:
        """How wide a text's vector is."""
        return encoder_width(self.path, self.where) * len(self._modes)

    def _build(self, quantization: QuantizationSpec | None) -> LoadedModel:
        module = load_encoder(
            self.path, self.where, tokenizer=self.tokenizer, random=self._random, seed=self.job.training.seed
        )
        if not quantization:
            return self._with_adapter(module, ())
        self._kept = []
        return self._from_rounded(load_quantized(module, (), self.path, self.where, quantization), module, ())

    @property
    def _reaches_experts(self) -> bool:
        return True  # in all versions that had this task

    def forward(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of texts, of shape (texts, width)."""
        hidden = module(**inputs).last_hidden_state
        return pooled_layers.embed(hidden, inputs["attention_mask"], self._modes, normalize=self._normalize)

    def _describe(self, folder: str) -> None:
        pooled_layers.describe_encoder(folder, self._modes, normalize=self._normalize)

    def _save(self, module: Any, folder: Path) -> None:
        pooled_layers.save_encoder(module, str(folder), self._modes, normalize=self._normalize)

    def proof(self, kind: ExportKind, folder: str, base: str, example: Example) -> Plain:
        """Return how an export's verification loads it: by sentence-transformers where it is installed, else by its own script."""
        if kind == "Adapter" or importlib.util.find_spec("sentence_transformers"):
            return self.plain(kind, folder, base, example)
        load = f'model = pooled["load_encoder"]({json.dumps(folder)})'
        return self._by_script("transformers", folder, load, example)

    def _plain(self, folder: str, example: Example) -> Plain:
        return Plain(
            _LIBRARY,
            f"from sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer({json.dumps(folder)})",
            f"print(model.encode({example.value}))",
            "model.encode(inputs, convert_to_tensor=True)",
            "[]",
        )

    def _plain_adapter(self, folder: str, base: str, example: Example) -> Plain:
        options, imports = "", ""
        if spec := self.job.model.quantization:
            values = ", ".join(f"{name}={value!r}" for name, value in config_options(spec, self._kept).items())
            options = f", quantization_config=BitsAndBytesConfig({values})"
            imports = "from transformers import BitsAndBytesConfig\n\n"
        load = f'{imports}base = pooled["load_encoder"]({json.dumps(base)}{options})\n{self._adapter_lines(folder)}'
        return self._by_script(self._adapter_library, folder, load, example)

    def _by_script(self, library: str, folder: str, load: str, example: Example) -> Plain:
        """Return how the script beside an export makes vectors with a model that some lines load."""
        return Plain(
            library,
            f"from runpy import run_path\n\npooled = {self._script(folder)}\n{load}\n"
            f'embed = pooled["embedder"](model, {json.dumps(folder)})',
            f"print(embed({example.value}))",
            "embed(inputs)",
            "[]",
        )
