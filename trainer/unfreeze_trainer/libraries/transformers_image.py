"""transformers: models that read images, with the head of an image classifier."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks import task_type
from unfreeze_trainer.libraries.base import Head, Library
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.batch_norm import average_over_batches
from unfreeze_trainer.models.export import Example, Plain
from unfreeze_trainer.models.folders import preprocessor_files
from unfreeze_trainer.models.image_processor import image_input, load_config
from unfreeze_trainer.models.loading import check_complete, load_classifier

_CLASS = "AutoModelForImageClassification"


class TransformersImage(Library):
    """A folder of transformers, with its image processor.

    Parameters
    ----------
    job
        Its model, adapter and seed count.
    image_size
        Height and width in pixels; the image processor's own when None.
    """

    name = "transformers"
    bare: ClassVar[bool] = False
    """Whether no head is to stand on the model."""

    def __init__(self, job: ResolvedJob, image_size: int | None) -> None:
        super().__init__(job)
        self._image_size = image_size

    def open(self, head: Head) -> None:
        """Take what the data says, and look at the image processor."""
        super().open(head)
        config = load_config(self.path, self.where, bare=self.bare)
        self._processor_files = preprocessor_files(self.path, self.where, says="a picture", kind="image processor")
        field = f"spec.task.{self.job.task.kind.member}.imageSize"
        self.sees = image_input(self.path, self.where, config, self._image_size, field=field)

    def files(self) -> list[str]:
        """Return the names of the files in the model's folder that are loaded."""
        return super().files() + self._processor_files

    def build(self) -> LoadedModel:
        """Load the model; the same weights on every rank, new ones are drawn from training.seed."""
        from transformers.models.auto.modeling_auto import AutoModelForImageClassification

        module, head, fresh = load_classifier(
            AutoModelForImageClassification,
            self.path,
            self.where,
            load_config(self.path, self.where),
            self.head.outputs,
            random=self._random,
            seed=self.job.training.seed,
            problem_type=self.head.problem_type,
        )
        check_complete(module, head, fresh, self.where)
        average_over_batches(module)
        names = frozenset(name for name, _ in module.named_parameters())
        return self._with_adapter(module.train(), head | (fresh & names))

    def forward(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs, of shape (samples, outputs); the mean of a distilled model's two heads."""
        return module(pixel_values=inputs["images"]).logits

    def _save(self, module: Any, folder: Path) -> None:
        module.save_pretrained(folder)

    def _plain(self, folder: str, example: Example) -> Plain:
        place = json.dumps(folder)
        if self.head.pipelined and self.sees.mode == "RGB":  # the pipeline makes every picture one in colour
            pipeline = json.dumps(task_type(self.job.task.type).pipeline)
            return Plain(
                self.name,
                f"{example.imports}\nfrom transformers import pipeline\n\nclassify = pipeline({pipeline}, model={place})",
                f"print(classify({example.value}))",
                _outputs("classify.model", "classify.image_processor"),
                _names("classify.model"),
            )
        return Plain(
            self.name,
            f"{example.imports}\nfrom transformers import AutoImageProcessor, {_CLASS}\n\n"
            f"model = {_CLASS}.from_pretrained({place}).eval()\n"
            f"processor = AutoImageProcessor.from_pretrained({place})\n"
            f"labels = {_names('model')}\n",
            self._predict(example),
            _outputs("model", "processor"),
        )

    def _plain_adapter(self, folder: str, base: str, example: Example) -> Plain:
        options = f"id2label=dict(enumerate(labels)), ignore_mismatched_sizes=True{self._in_float32}"
        return Plain(
            self._adapter_library,
            f"{example.imports}\nfrom transformers import AutoImageProcessor, {_CLASS}\n\n"
            f"labels = {list(self.head.outputs)}\n"
            f"base = {_CLASS}.from_pretrained(\n    {json.dumps(base)}, {options}\n)\n"
            f"processor = AutoImageProcessor.from_pretrained({json.dumps(folder)})\n\n"
            f"{self._adapter_lines(folder)}\n",
            self._predict(example),
            _outputs("model", "processor"),
        )

    def _predict(self, example: Example) -> str:
        answer = self.head.answer("model(**inputs).logits")
        return f'inputs = processor({example.value}, return_tensors="pt")\nprint({answer})'


def _outputs(model: str, processor: str) -> str:
    """Return an expression for the outputs of `inputs`, tensors of one picture each."""
    return f'{model}(**{processor}(inputs, return_tensors="pt")).logits'


def _names(model: str) -> str:
    return f"[{model}.config.id2label[i] for i in range(len({model}.config.id2label))]"
