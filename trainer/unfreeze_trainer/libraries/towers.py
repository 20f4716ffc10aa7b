"""The encoders of a bridge: a model folder of one modality each, without what stands on its last layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.contracts.resolved.model import tower_keys
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.libraries.base import Head
from unfreeze_trainer.libraries.sentence_encoder import SentenceEncoder
from unfreeze_trainer.libraries.timm import Timm
from unfreeze_trainer.libraries.transformers_audio import TransformersAudio
from unfreeze_trainer.libraries.transformers_image import TransformersImage
from unfreeze_trainer.models.audio import load_audio_model
from unfreeze_trainer.models.bridge_layers import of_clips, of_pictures, without_head
from unfreeze_trainer.models.class_names import Classifier, classifier_of, reads_pooled, timm_names, transformers_names
from unfreeze_trainer.models.folders import library_of
from unfreeze_trainer.models.image import loading, size_option
from unfreeze_trainer.models.image_input import ImageInput
from unfreeze_trainer.models.image_processor import load_config
from unfreeze_trainer.models.loading import be_quiet, check_complete, failed, from_folder, seeded
from unfreeze_trainer.models.pooling import write_script

_AT_ONCE = 64
"""Texts that are read at a time."""


def place_of(job: ResolvedJob, index: int) -> str:
    """Return what messages about one of the towers of a job start with: field and source."""
    return f"spec.model.towers[{index}].source {job.model.towers[index].source}"


@contextmanager
def naming(job: ResolvedJob, index: int) -> Iterator[None]:
    """Have errors about a base say which of the towers it is."""
    try:
        yield
    except JobError as error:
        said = error.marked.replace(f"spec.model.source {job.model.towers[index].source}", place_of(job, index))
        raise JobError(error.reason, said) from error


class Tower(ABC):
    """An encoder of one modality, whose folder is checked."""

    modality: ClassVar[str]
    """In small letters."""
    key: str
    """The modality, of further encoders of it with a number: what its inputs in a batch begin with, and its folder in an export."""
    path: str
    where: str
    """What messages about it start with."""

    @abstractmethod
    def open(self, head: Head) -> None:
        """Look at what turns its inputs into tensors. JobError InvalidModel."""

    @abstractmethod
    def files(self) -> list[str]:
        """Return the names of the files in its folder that are loaded."""

    @abstractmethod
    def build(self) -> tuple[nn.Module, int]:
        """Load the encoder, in training mode; return it with how many numbers it gives of a sample."""

    @abstractmethod
    def features(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return what the encoder makes of its inputs, (samples, width)."""

    @abstractmethod
    def save(self, module: Any, folder: Path) -> dict[str, Any]:
        """Write the encoder without its preprocessing; return what `bridge_layers.load` has to know of it."""


class TextTower(SentenceEncoder, Tower):
    """An encoder of texts, of transformers or sentence-transformers, with its own pooling."""

    modality = "text"

    def build(self) -> tuple[nn.Module, int]:  # type: ignore[override]
        """Load the encoder, in training mode; return it with how many numbers it gives of a text."""
        return super().build().module, self.width

    def features(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of texts, (samples, width)."""
        return self.forward(module, inputs)

    @torch.no_grad()
    def words(self, module: nn.Module, texts: Sequence[str], max_length: int) -> Tensor:
        """Return the vectors of some texts as they are in an evaluation, (texts, width)."""
        training, found = module.training, []
        module.eval()
        for start in range(0, len(texts), _AT_ONCE):
            some = list(texts[start : start + _AT_ONCE])
            read = self.tokenizer(some, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
            found.append(self.features(module, {name: read[name] for name in ("input_ids", "attention_mask")}).float())
        module.train(training)
        return torch.cat(found)

    def save(self, module: Any, folder: Path) -> dict[str, Any]:  # type: ignore[override]
        """Write the encoder as sentence-transformers has it."""
        self._save(module, folder)
        write_script(folder)
        return {"library": self.name}


class ImageTower(Tower):
    """What both libraries have in common."""

    modality = "image"

    @abstractmethod
    def classifier(self) -> Classifier | None:
        """Return the classifier that the folder brings along; None where it has none that reads the encoder's vectors, or no names."""

    def features(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of pictures, (samples, width)."""
        return of_pictures(module, inputs["images"])

    def _with_width(self, module: nn.Module, sees: ImageInput) -> tuple[nn.Module, int]:
        with torch.no_grad():
            width = of_pictures(module.eval(), sees.blank[None]).shape[1]
        return module.train(), width


class TimmTower(Timm, ImageTower):
    """An encoder of pictures of timm."""

    def build(self) -> tuple[nn.Module, int]:  # type: ignore[override]
        """Load the encoder, in training mode; return it with how many numbers it gives of a picture."""
        import timm

        options = {"pretrained": not self._random, "num_classes": 0} | size_option(self.path, self._image_size)
        try:
            with seeded(self.job.training.seed), loading() as loaded:
                module = timm.create_model(f"local-dir:{self.path}", **options).float()
        except Exception as error:  # a broken folder is broken in many ways, and none of them goes away on a retry
            raise failed(f"{self.where}: the model cannot be loaded", error, self.path) from error
        loaded.check(module, frozenset(), self.where)
        return self._with_width(module, self.sees)

    def classifier(self) -> Classifier | None:
        """Return the classifier that the folder brings along, its classes named by the folder or as those of ImageNet."""
        import timm

        options = {"pretrained": not self._random} | size_option(self.path, self._image_size)
        module = timm.create_model(f"local-dir:{self.path}", **options).float()
        return classifier_of(module.get_classifier(), timm_names(module))

    def save(self, module: Any, folder: Path) -> dict[str, Any]:  # type: ignore[override]
        """Write the encoder as timm has it."""
        from timm.models._hub import save_for_hf

        save_for_hf(module, folder, safe_serialization=True, data_config=self.data_config)
        return {"library": self.name, "mode": self.sees.mode}


class TransformersTower(TransformersImage, ImageTower):
    """An encoder of pictures of transformers."""

    bare = True

    @cached_property
    def _config(self) -> Any:
        config = load_config(self.path, self.where, bare=self.bare)
        if hasattr(config, "vision_config"):
            raise JobError(
                "InvalidModel",
                f"{self.where}: model_type {config.model_type} is a bridge itself, with an encoder of texts beside that of pictures:"
                " name an encoder of pictures alone",
            )
        return config

    def open(self, head: Head) -> None:
        """Look at the image processor."""
        _ = self._config
        super().open(head)

    def build(self) -> tuple[nn.Module, int]:  # type: ignore[override]
        """Load the encoder, in training mode; return it with how many numbers it gives of a picture."""
        from transformers.models.auto.modeling_auto import MODEL_MAPPING

        from unfreeze_trainer.models.batch_norm import average_over_batches

        be_quiet()
        loader: Any = MODEL_MAPPING[type(self._config)]
        module: Any
        fresh: set[str] = set()
        try:
            with seeded(self.job.training.seed):
                if self._random:
                    module = loader._from_config(self._config, dtype=torch.float32)  # noqa: SLF001 - what Auto calls
                else:
                    module, fresh = from_folder(loader, self.path, self._config)
        except Exception as error:  # as above
            raise failed(f"{self.where}: the model cannot be loaded", error, self.path) from error
        check_complete(module, frozenset(), fresh, self.where)
        average_over_batches(module)
        return self._with_width(module, self.sees)

    def classifier(self) -> Classifier | None:
        """Return the classifier that the folder brings along, where it reads what the encoder gives."""
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING as KNOWN

        if type(self._config) not in KNOWN or not (names := transformers_names(self._config)):
            return None
        loader, module = KNOWN[type(self._config)], None
        if self._random:
            module = loader._from_config(self._config, dtype=torch.float32)  # noqa: SLF001 - what Auto calls
            return classifier_of(getattr(module, "classifier", None), names)
        module, fresh = from_folder(loader, self.path, self._config)
        found = None if fresh else classifier_of(getattr(module, "classifier", None), names)
        return found if found and reads_pooled(module.eval(), found, self.sees.blank[None]) else None

    def save(self, module: Any, folder: Path) -> dict[str, Any]:  # type: ignore[override]
        """Write the encoder as transformers has it."""
        module.save_pretrained(folder)
        return {"library": self.name, "mode": self.sees.mode}


class AudioTower(TransformersAudio, Tower):
    """An encoder of clips, of transformers: an audio classifier up to what its head reads, the mean over the clip."""

    modality = "audio"

    def build(self) -> tuple[nn.Module, int]:  # type: ignore[override]
        """Load the encoder, in training mode; return it with how many numbers it gives of a clip."""
        module, _ = load_audio_model(
            self.path,
            self.where,
            ("", ""),
            positions=self.hears.positions,
            random=self._random,
            seed=self.job.training.seed,
            problem_type="single_label_classification",
        )
        return module, without_head(module)

    def features(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of clips, (samples, width)."""
        return of_clips(module, inputs)

    def save(self, module: Any, folder: Path) -> dict[str, Any]:  # type: ignore[override]
        """Write the encoder as transformers has audio classifiers."""
        self._save(module, folder)
        return {"library": self.name, "longest": self.hears.longest, "rate": self.hears.extractor.sampling_rate}


def open_towers(job: ResolvedJob, *, image_size: int | None, max_seconds: float | None) -> list[Tower]:
    """Return the towers of a job, whose folders are checked. JobError InvalidModel, which says which one it is."""
    found: list[Tower] = []
    for index, key in enumerate(tower_keys(job.model.modalities or ())):
        with naming(job, index):
            tower = open_tower(job, index, image_size=image_size, max_seconds=max_seconds)
        tower.key = key
        found.append(tower)
    return found


def open_tower(job: ResolvedJob, index: int, *, image_size: int | None, max_seconds: float | None) -> Tower:
    """Return one of the towers of a job, whose folder is checked, with its modality as its key. JobError InvalidModel."""
    tower, own = job.model.towers[index], job.of_tower(index)
    found: Tower
    if tower.modality == "Text":
        found = TextTower(own)
    elif tower.modality == "Audio":
        found = AudioTower(own, max_seconds)
    else:
        kind = library_of(own.model.weights_path, tower.source, ("transformers", "timm"))
        found = (TimmTower if kind == "timm" else TransformersTower)(own, image_size)
    found.key, found.where = found.modality, place_of(job, index)
    return found
