"""Image classification: a folder of images or a table of their paths, a timm model."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from unfreeze_api.resolve import ResolvedJob
from unfreeze_api.tasks.image_classification import ImageClassificationSpec
from unfreeze_trainer.data.image_loader import READ_IMAGES, READ_SECONDS, ImageLoader, spread
from unfreeze_trainer.data.images import read_images, sample_name
from unfreeze_trainer.data.samples import read_splits
from unfreeze_trainer.data.unread import too_many
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.folders import check_folder
from unfreeze_trainer.models.image import data_config, load_image_model, size_option
from unfreeze_trainer.tasks.base import Batch, ExportKind, Task

log = logging.getLogger(__name__)

_MODES = {1: "L", 3: "RGB"}


class ImageClassification(Task):
    """Opens the data and the model folder of a job; images are decoded in threads, as they are needed."""

    _library = "timm"

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(ImageClassificationSpec)
        assert options is not None
        self._options = options
        self._where = f"spec.model.source {job.model.source}"
        self._skips = job.data.on_error == "Skip"
        self._random = job.model.initialization == "Random"
        check_folder(job.model.path, job.model.source, library="timm", weights=not self._random)
        super().__init__(job, *read_splits(job, partial(read_images, skip=self._skips)))
        try:
            self._data_config = data_config(job.model.path, options.image_size)
            self._loader = ImageLoader(
                self._data_config,
                augment=options.augmentation != "None",
                as_shown=job.semantics.pictures == "AsShown",
            )
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            message = f"{self._where}: config.json does not say how images are prepared: {error!r}"
            raise JobError("InvalidModel", message) from error

    def check_samples(self, rank: int, world_size: int) -> None:
        """Read this rank's share of the pictures, for READ_SECONDS at most; the others are read when it is their turn."""
        end = time.monotonic() + READ_SECONDS
        for source in dict.fromkeys(split.source for split in self._splits.values()):
            rows = spread(len(source.inputs))[:READ_IMAGES][rank::world_size]
            read, broken = self._loader.check(source, rows, end - time.monotonic())
            if broken and (not self._skips or 2 * len(broken) > read):
                raise broken[0] if not self._skips else too_many(source.where, len(broken), read, broken[0])
            if (total := len(range(rank, len(source.inputs), world_size))) > read:
                log.info(
                    "%s: %d of %d pictures, evenly spread, were read before the training: the others when it is their turn",
                    source.where,
                    read * world_size,
                    total * world_size,
                )

    def name_of(self, split: str, index: int) -> str:
        """Return what a JobError's message calls a sample: source, and file or row."""
        part = self._splits[split]
        return sample_name(part.source, int(part.rows[index]))

    @property
    def remedy(self) -> str:
        """What to do about a model that fails at the samples."""
        _, height, width = self._data_config["input_size"]
        _, *own = data_config(self.job.model.path, None)["input_size"]
        known = f" ({own[0]} x {own[1]} is the folder's own)" if own != [height, width] else ""
        return (
            f"Pictures reach it with {height} x {width} pixels: set spec.task.imageClassification.imageSize to a size that"
            f" {self._where} takes{known}, or choose another model"
        )

    def build_model(self) -> LoadedModel:
        """Load the model; the same weights on every rank, new ones are drawn from training.seed."""
        module, head = load_image_model(
            self.job.model.path,
            self._where,
            self.labels,
            image_size=self._options.image_size,
            random=self._random,
            seed=self.job.training.seed,
        )
        return self._with_adapter(module, head)

    def _inputs(
        self, split: str, batches: Iterable[Sequence[int]], epoch_seed: int | None
    ) -> Iterator[tuple[Sequence[int], Batch]]:
        part, unread = self._splits[split], self.unread[split] if self._skips else None
        rows = ((indices, part.rows[np.asarray(indices, dtype=np.int64)]) for indices in batches)
        for indices, images in self._loader.batches(part.source, rows, epoch_seed, unread):
            yield indices, {"images": images}

    def forward(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return logits of shape (samples, classes); the mean of a distilled model's two heads."""
        logits: Tensor | tuple[Tensor, ...] = module(batch["images"])
        return logits if isinstance(logits, Tensor) else sum(logits[1:], logits[0]) / len(logits)

    def tokens(self, batch: Mapping[str, Tensor]) -> int:  # noqa: ARG002 - images have none
        """Return 0: images have no tokens."""
        return 0

    def _save(self, module: Any, folder: Path) -> None:
        from timm.models._hub import save_for_hf

        save_for_hf(
            module,
            folder,
            model_config={"label_names": self.labels},
            safe_serialization=True,
            data_config=self._data_config,
        )

    def _save_preprocessing(self, folder: Path) -> None:
        pass  # in config.json; an adapter's base has its own

    def usage(self, kind: ExportKind, folder: str, base: str) -> str:
        """Return the lines of Python that load an export and predict with it."""
        if kind == "Adapter":
            size = "".join(f", {name}={value}" for name, value in self._base_options().items())
            data = {name: self._data_config[name] for name in sorted(self._data_config)}
            load = (
                f"labels = {self.labels}\n"
                f"base = timm.create_model({json.dumps(f'local-dir:{base}')}, pretrained=True, num_classes=len(labels){size})\n\n"
                f"{self._adapter_usage(folder)}\n"
                f"transform = timm.data.create_transform(**{data})"
            )
        else:
            load = (
                f"model = timm.create_model({json.dumps(f'local-dir:{folder}')}, pretrained=True).eval()\n"
                'labels = model.pretrained_cfg["label_names"]\n'
                "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))"
            )
        return (
            "import timm\nfrom PIL import Image\n\n"
            f"{load}\n\n"
            f'image = Image.open("picture.png").convert("{_MODES[self._data_config["input_size"][0]]}")\n'
            "print(labels[int(model(transform(image).unsqueeze(0)).argmax())])"
        )

    def _base_options(self) -> dict[str, int]:
        return size_option(self.job.model.path, self._options.image_size)

    def _plain_inputs(self, batch: Batch) -> dict[str, Any]:
        return {"images": batch["images"], "options": self._base_options()}
