"""Image classifiers from timm folders: a pretrained body and a new head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.folders import of_wrapper
from unfreeze_trainer.models.heads import timm_head
from unfreeze_trainer.models.image_input import MODES, ImageInput
from unfreeze_trainer.models.loading import check_complete, failed, seeded


def load_image_model(
    path: str, where: str, labels: Sequence[str], *, image_size: int | None, field: str, random: bool, seed: int
) -> tuple[nn.Module, frozenset[str]]:
    """Load a timm model in float32 and give it a classifier for these labels.

    The classifier is new, drawn from `seed`, unless the checkpoint is a classifier for exactly these labels: then
    training continues.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    labels
        In the order of class ids.
    image_size
        Height and width in pixels; the pretrained size when None. Position embeddings are resampled to it.
    field
        Name of the field that says so, for messages.
    random
        Keep the architecture only: all weights are drawn from `seed`.
    seed
        Seed of new weights.

    Returns
    -------
    tuple
        The model in training mode, and the classifier's parameters by name.
    """
    import timm

    try:
        config = folder_config(path)
        size = size_option(path, image_size)
        same_labels = config.get("label_names") == list(labels)
        with seeded(seed), loading() as loaded:
            module = timm.create_model(
                f"local-dir:{path}", pretrained=not random, num_classes=len(labels), **size
            ).float()
            if not same_labels:
                module.reset_classifier(len(labels))
        with torch.device("meta"):
            skeleton = timm.create_model(f"local-dir:{path}", num_classes=len(labels), **size)
            new = timm_head(skeleton, len(labels))
    except Exception as error:  # a broken folder is broken in many ways, and none of them goes away on a retry
        sized = f" with {field} {image_size}, which it may not take" if image_size else ""
        raise failed(f"{where}: the model cannot be loaded{sized}", error, path) from error
    head = frozenset(name for name, _ in module.named_parameters() if name in new)
    if not head:
        raise JobError("InvalidModel", f"{where}: timm's {config.get('architecture')} has no classifier to train")
    loaded.check(module, head, where)
    return module.train(), head


_WRAPPED = "timm_model."
"""What the names of weights begin with that transformers has written of a model of timm."""


@dataclass(frozen=True)
class Loading:
    """How weights and models differed that were loaded."""

    lacking: set[str] = field(default_factory=set)
    """Names of the model's that the weights have not."""
    unknown: set[str] = field(default_factory=set)
    """Names of the weights' that the model has not."""

    def check(self, module: nn.Module, head: frozenset[str], where: str) -> None:
        """Raise JobError InvalidModel for weights that lack something of a model but its head."""
        if any(name.startswith(_WRAPPED) for name in self.unknown):
            raise of_wrapper(where)
        check_complete(module, head, self.lacking, where, others=self.unknown)


@contextmanager
def loading() -> Iterator[Loading]:
    """Yield what is filled while timm loads weights: it leaves what they lack at random, and says so in its log alone."""
    found, load = Loading(), nn.Module.load_state_dict

    def noting(module: nn.Module, *arguments: Any, **options: Any) -> Any:
        keys = load(module, *arguments, **options)
        found.lacking.update(keys.missing_keys)
        found.unknown.update(keys.unexpected_keys)
        return keys

    with patch.object(nn.Module, "load_state_dict", noting):
        yield found


def size_option(path: str, image_size: int | None) -> dict[str, int]:
    """Return the argument of timm.create_model that sets another image size; most models take any size as it is."""
    return {"img_size": image_size} if image_size and folder_config(path).get("fixed_input_size") else {}


def folder_config(path: str) -> dict[str, Any]:
    """Return timm's pretrained_cfg of a folder: input size, mean, std, crop, fixed_input_size, label_names.

    What the model is made with (model_args) goes before: earlier timm left the input size and the colours of the weights that a
    model began with. Of colours that are not as many as its channels it is their mean, as timm has it.
    """
    from timm.models._hub import load_model_config_from_path

    config, architecture, made_with = load_model_config_from_path(path)
    config |= {"architecture": architecture}
    if size := config.get("input_size"):
        channels, sides = made_with.get("in_chans") or size[0], made_with.get("img_size") or size[1:]
        height, width = sides if isinstance(sides, list | tuple) else (sides, sides)
        config["input_size"] = (channels, height, width)
        for name in ("mean", "std"):
            if (values := config.get(name)) and len(values) != channels:
                config[name] = (sum(values) / len(values),) * channels
    return config


def data_config(path: str, image_size: int | None) -> dict[str, Any]:
    """Return how the model wants its images: input_size (channels, height, width), interpolation, mean, std, crop."""
    from timm.data import resolve_data_config

    config = folder_config(path)
    data = resolve_data_config(pretrained_cfg=config)
    if image_size:
        data["input_size"] = (data["input_size"][0], image_size, image_size)
    return data


def timm_input(config: dict[str, Any], own_size: tuple[int, int]) -> ImageInput:
    """Return what a timm model sees of a picture.

    Parameters
    ----------
    config
        Of `data_config`.
    own_size
        Height and width in pixels that it was pretrained with.
    """
    from PIL.Image import Image, Resampling
    from timm.data import create_transform

    channels, height, width = config["input_size"]
    resample = {"bilinear": Resampling.BILINEAR, "nearest": Resampling.NEAREST, "lanczos": Resampling.LANCZOS}
    mean, std = (torch.tensor(config[name]).view(-1, 1, 1) for name in ("mean", "std"))

    def sized(image: Image) -> Tensor:
        pixels = np.array(image, dtype=np.float32).reshape(height, width, channels) / 255
        return (torch.from_numpy(pixels).permute(2, 0, 1) - mean) / std

    return ImageInput(
        mode=MODES[channels],
        height=height,
        width=width,
        own_size=own_size,
        resample=resample.get(config["interpolation"], Resampling.BICUBIC),
        fill=tuple(min(255, round(255 * value)) for value in config["mean"]),
        whole=create_transform(**config, is_training=False),
        sized=sized,
        blank=torch.zeros(channels, height, width),
    )
