"""transformers: models that see and read, such as CLIP and SigLIP, with their processor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.libraries.base import Head, Library
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.dual_encoder import KINDS, SIGMOID, as_in_library, load_dual_encoder, of_pictures
from unfreeze_trainer.models.export import Example, Plain
from unfreeze_trainer.models.folders import preprocessor_files, tokenizer_files
from unfreeze_trainer.models.image_processor import image_input
from unfreeze_trainer.models.loading import be_quiet, open_config
from unfreeze_trainer.models.own_head import OwnHead
from unfreeze_trainer.models.text import Limits, load_tokenizer

_IMPORTS = "from PIL import Image\nfrom transformers import {}\n\n"


class DualEncoder(Library):
    """A folder of transformers with a tower that sees and one that reads; outputs are (samples, texts and one, width).

    Parameters
    ----------
    job
        Its model, adapter and seed count.
    frozen
        Whether the tower that sees stays as it is.

    Raises
    ------
    JobError
        InvalidModel: it is another kind of model.
    """

    name = "transformers"
    mark: int | None = None
    """It has no head that looks for a token in texts."""

    def __init__(self, job: ResolvedJob, *, frozen: bool) -> None:
        super().__init__(job)
        be_quiet()
        self._frozen, kind = frozen, self.config.get("model_type")
        if kind not in KINDS:
            raise JobError(
                "InvalidModel",
                f"{self.where}: a model of model_type {kind} does not see and read as CLIP does: name one of model_type"
                f" {' or '.join(KINDS)}, the whole of it",
            )
        self.sigmoid = kind in SIGMOID
        self._config = open_config(self.path, self.where)

    @cached_property
    def limits(self) -> Limits:
        """What the tower that reads takes."""
        text = self._config.text_config
        return Limits(int(text.max_position_embeddings), int(text.vocab_size))

    @property
    def width(self) -> int:
        """How many numbers of a vector are compared."""
        if self.sigmoid:
            return int(self._config.text_config.projection_size)
        return int(self._config.projection_dim)

    def open(self, head: Head) -> None:
        """Look at the processor: what it makes of pictures, and the tokenizer."""
        super().open(head)
        self._processor_files = preprocessor_files(self.path, self.where, says="a picture", kind="image processor")
        self.sees = image_input(self.path, self.where, self._config, None, field="")
        tokenizer_files(self.path, self.where, ())
        self.tokenizer = load_tokenizer(self.path, self.where)
        self._tokenizer_files = tokenizer_files(self.path, self.where, type(self.tokenizer).vocab_files_names.values())
        if self.sigmoid:  # padding is read as text: the model was pretrained so
            self.tokenizer.model_input_names = ["input_ids"]
            self.tokenizer.init_kwargs["model_input_names"] = ["input_ids"]

    def files(self) -> list[str]:
        """Return the names of the files in the model's folder that are loaded."""
        return list(dict.fromkeys([*super().files(), *self._processor_files, *self._tokenizer_files]))

    def build(self) -> LoadedModel:
        """Load the model; the same weights on every rank, new ones are drawn from training.seed."""
        config = open_config(self.path, self.where)  # a model keeps the one that it is made of
        module, head = load_dual_encoder(
            self.path, self.where, config, random=self._random, seed=self.job.training.seed
        )
        loaded = self._with_adapter(module, head)
        return replace(loaded, locked=of_pictures(loaded.module)) if self._frozen else loaded

    def own_head(self) -> OwnHead | None:
        """Return None: what stands on its towers is trained on."""
        return None

    def forward(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of each sample's picture and texts, whose products are logits: (samples, texts and one, width)."""
        vectors: Tensor = module(pixel_values=inputs["image.images"], **self._texts(inputs))
        return vectors

    def of_pictures(self, module: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of pictures alone, (samples, width)."""
        vectors: Tensor = module.get_image_features(pixel_values=inputs["image.images"]).pooler_output
        return vectors

    def of_texts(self, module: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of texts alone, (texts, width)."""
        vectors: Tensor = module.get_text_features(**self._texts(inputs)).pooler_output
        return vectors

    @staticmethod
    def scale(module: Any) -> Tensor:
        """Return the factor of cosines of a finished model, of shape (1,)."""
        factor: Tensor = module.logit_scale.exp()
        return factor

    def _texts(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        texts = {"input_ids": inputs["text.input_ids"]}
        return texts if self.sigmoid else texts | {"attention_mask": inputs["text.attention_mask"]}

    def save_processor(self, folder: Path) -> None:
        """Write the processor of pictures and texts as one, as AutoProcessor loads it."""
        from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

        kind: Any = PROCESSOR_MAPPING[type(self._config)]
        kind(image_processor=self.sees.processor, tokenizer=self.tokenizer).save_pretrained(folder)

    def _save(self, module: Any, folder: Path) -> None:
        with as_in_library(module):
            module.save_pretrained(folder)

    def _plain(self, folder: str, example: Example) -> Plain:
        place = json.dumps(folder)
        load = f"model = AutoModel.from_pretrained({place}).eval()\n{self._processor(folder)}"
        return self._lines(self.name, _IMPORTS.format("AutoModel, AutoProcessor") + load, example)

    def _plain_adapter(self, folder: str, base: str, example: Example) -> Plain:
        load = f"base = AutoModel.from_pretrained({json.dumps(base)}{self._in_float32})\n{self._processor(folder)}\n"
        lines = _IMPORTS.format("AutoModel, AutoProcessor") + load + self._adapter_lines(folder)
        return self._lines(self._adapter_library, lines, example)

    @staticmethod
    def _processor(folder: str) -> str:
        return f"processor = AutoProcessor.from_pretrained({json.dumps(folder)})\n"

    def _lines(self, library: str, load: str, example: Example) -> Plain:
        padding = '"max_length"' if self.sigmoid else "True"
        options = f'padding={padding}, truncation=True, return_tensors="pt"'
        shares = "sigmoid()" if self.sigmoid else "softmax(dim=1)"
        pictures = '[Image.fromarray(one.squeeze(2).numpy()) for one in inputs["image"]]'
        parts = "outputs.image_embeds, outputs.text_embeds, outputs.logits_per_image"
        return Plain(
            library,
            load,
            f"inputs = processor({example.value}, {options})\nprint(model(**inputs).logits_per_image.{shares})",
            f'(lambda outputs: __import__("torch").cat([{parts}], dim=1))'
            f'(model(**processor(text=inputs["text"], images={pictures}, {options})))',
            "[]",
        )
