"""timm: models that read images, with their classifier."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.libraries.base import Library
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.export import Example, Plain
from unfreeze_trainer.models.image import data_config, load_image_model, size_option, timm_input
from unfreeze_trainer.models.image_input import ImageInput
from unfreeze_trainer.models.own_head import OwnHead, timm_own_head


class Timm(Library):
    """A folder of timm.

    Parameters
    ----------
    job
        Its model, adapter and seed count.
    image_size
        Height and width in pixels; the pretrained size when None.
    """

    name = "timm"

    def __init__(self, job: ResolvedJob, image_size: int | None) -> None:
        super().__init__(job)
        self._image_size = image_size

    @cached_property
    def data_config(self) -> dict[str, Any]:
        """How the model wants its images: input_size (channels, height, width), interpolation, mean, std, crop."""
        return data_config(self.path, self._image_size)

    @cached_property
    def sees(self) -> ImageInput:
        """What the model sees of a picture."""
        try:
            _, height, width = data_config(self.path, None)["input_size"]
            return timm_input(self.data_config, (height, width))
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            message = f"{self.where}: config.json does not say how images are prepared: {error!r}"
            raise JobError("InvalidModel", message) from error

    def build(self) -> LoadedModel:
        """Load the model; the same weights on every rank, new ones are drawn from training.seed."""
        module, head = load_image_model(
            self.path,
            self.where,
            self.head.outputs,
            image_size=self._image_size,
            field=f"spec.task.{self.job.task.kind.member}.imageSize",
            random=self._random,
            seed=self.job.training.seed,
        )
        self._head = head
        return self._with_adapter(module, head)

    def own_head(self) -> OwnHead | None:
        """Return the classifier that the base brings along, None where it has none."""
        return timm_own_head(self.path, self._head, **size_option(self.path, self._image_size))

    def forward(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs, of shape (samples, outputs); the mean of a distilled model's two heads."""
        outputs: Tensor | tuple[Tensor, ...] = module(inputs["images"])
        return outputs if isinstance(outputs, Tensor) else sum(outputs[1:], outputs[0]) / len(outputs)

    def _save(self, module: Any, folder: Path) -> None:
        from timm.models._hub import save_for_hf

        save_for_hf(
            module,
            folder,
            model_config={"label_names": list(self.head.outputs)},
            safe_serialization=True,
            data_config=self.data_config,
        )

    def _plain(self, folder: str, example: Example) -> Plain:
        load = (
            f"model = timm.create_model({json.dumps(f'local-dir:{folder}')}, pretrained=True).eval()\n"
            'labels = model.pretrained_cfg["label_names"]\n'
            "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))"
        )
        return self._lines(self.name, load, example)

    def _plain_adapter(self, folder: str, base: str, example: Example) -> Plain:
        size = "".join(f", {name}={value}" for name, value in size_option(self.path, self._image_size).items())
        data = {name: self.data_config[name] for name in sorted(self.data_config)}
        place = json.dumps(f"local-dir:{base}")
        load = (
            f"labels = {list(self.head.outputs)}\n"
            f"base = timm.create_model({place}, pretrained=True, num_classes=len(labels){size})\n\n"
            f"{self._adapter_lines(folder)}\n"
            f"transform = timm.data.create_transform(**{data})"
        )
        return self._lines(self._adapter_library, load, example)

    def _lines(self, library: str, load: str, example: Example) -> Plain:
        imports = "".join(f"{line}\n" for line in ("import timm", example.imports) if line)
        answer = self.head.answer("model(transform(image).unsqueeze(0))")
        return Plain(
            library,
            f"{imports}\n{load}\n",
            f"image = {example.value}\nprint({answer})",
            "model(inputs)",
        )
