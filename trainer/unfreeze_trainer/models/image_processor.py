"""Image classifiers from transformers folders: which there are, and what they see of a picture by their own processor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.folders import CHANNELS, PREPROCESSOR_FILES, listing
from unfreeze_trainer.models.image_input import MODES, ImageInput
from unfreeze_trainer.models.loading import be_quiet, failed, open_config

if TYPE_CHECKING:
    from PIL.Image import Resampling

_OTHERS = {
    "imagegpt": "reads colours by number",
    "perceiver": "reads rows of bytes",
    "pp_lcnet": "gives no logits in transformers",
    "shieldgemma2": "reads a text beside the picture",
    "siglip2": "reads lists of patches",
}
"""Classifiers of transformers that do not read pictures as they are, or say nothing of them that a loss takes."""
_HEADLESS = ("clip_vision_model", "siglip_vision_model", "dinov3_vit", "dinov3_convnext")
"""Encoders of pictures of transformers that have no class of classifiers."""
_PROBES = ((48, 32), (40, 72))
"""Width and height of pictures by which a processor is tried."""


def load_config(path: str, where: str, *, bare: bool = False) -> Any:
    """Return transformers' configuration of an image classifier, or of an encoder of pictures.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    bare
        Whether no head is to stand on it: transformers has encoders of pictures that it has no classifier of.

    Raises
    ------
    JobError
        InvalidModel: it reads something else, or pictures of other channels.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as CLASSES

    be_quiet()
    config = open_config(path, where)
    taken = [name for name in CLASSES if name not in _OTHERS] + [*_HEADLESS] * bare
    kind = config.model_type
    if kind not in taken:
        why = f"transformers has no image classifier of model_type {kind}"
        if kind in _OTHERS:
            why = f"a model of model_type {kind} {_OTHERS[kind]}"
        raise JobError("InvalidModel", f"{where}: {why}: name a model of timm, or of {', '.join(taken)}")
    channels = _channels(config)
    if channels not in CHANNELS:
        raise JobError(
            "InvalidModel",
            f"{where}: the model takes pictures of {channels} channels (num_channels in config.json), and what is read here"
            " is grey, 1 channel, or in colour, 3: name a model that takes one of these",
        )
    return config


def _channels(config: Any) -> int:
    """Return how many channels a model's pictures have; two towers say it of the one that sees."""
    return int(getattr(getattr(config, "vision_config", config), "num_channels", 3))


def image_input(path: str, where: str, config: Any, image_size: int | None, *, field: str) -> ImageInput:
    """Return what a model sees of a picture.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    config
        Of `load_config`.
    image_size, field
        Height and width in pixels, the folder's own when None; and the field that says so.

    Raises
    ------
    JobError
        InvalidModel: there is no image processor, or it is none of this model's.
    """
    from PIL.Image import Image, new
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    mode = MODES[_channels(config)]
    sized = f" with {field} {image_size}" if image_size else ""
    try:
        processor: Any = AutoImageProcessor.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        own = _shapes(processor, mode)
        if image_size:
            _resize(processor, image_size)
        shapes = _shapes(processor, mode) if image_size else own
        resample = _resampling(processor)
    except Exception as error:  # as above
        message = f"{where}: the image processor cannot be used{sized}"
        raise failed(message, error, path, f"; {listing(path)}") from error
    if len(set(shapes)) > 1:
        sizes = " and ".join(" x ".join(map(str, shape[1:])) for shape in shapes)
        raise JobError(
            "InvalidModel",
            f"{where}: the image processor makes pictures of {sizes} pixels of two, and a batch needs one size: set do_resize"
            f" and size to a height and a width in {PREPROCESSOR_FILES[0]}, or do_center_crop and crop_size",
        )
    channels, height, width = shapes[0]
    if channels != _channels(config):
        raise JobError(
            "InvalidModel",
            f"{where}: the image processor makes pictures of {channels} channels, and the model takes {_channels(config)}"
            f" (num_channels): copy the {PREPROCESSOR_FILES[0]} there that the model was pretrained with",
        )

    def whole(image: Image) -> Tensor:
        return _pixels(processor, image)

    def as_it_is(image: Image) -> Tensor:
        return _pixels(processor, image, do_resize=False, do_center_crop=False)

    return ImageInput(
        mode=mode,
        height=height,
        width=width,
        own_size=(own[0][1], own[0][2]),
        resample=resample,
        fill=_fill(processor, channels),
        whole=whole,
        sized=as_it_is,
        blank=whole(new(mode, (width, height))),
        processor=processor,
    )


def _pixels(processor: Any, image: Any, **options: Any) -> Tensor:
    """Return what a processor makes of one picture, float32 of shape (channels, height, width)."""
    pixels: Tensor = processor(image, return_tensors="pt", **options)["pixel_values"][0]
    if pixels.ndim != 3:  # noqa: PLR2004 - channels, height, width
        raise ValueError(f"it makes pixel_values of shape {tuple(pixels.shape)} of a picture")
    return pixels.to(torch.float32)


def _resampling(processor: Any) -> Resampling:
    """Return how a processor scales, in Pillow's words; those that do not say so do it bilinearly."""
    from PIL.Image import Resampling

    said = getattr(processor, "resample", None)
    if said is None:
        return Resampling.BILINEAR
    return Resampling(said) if isinstance(said, int) else Resampling[said.name]


def _fill(processor: Any, channels: int) -> tuple[int, ...]:
    means = getattr(processor, "image_mean", None) or (0.5,) * channels
    return tuple(min(255, round(255 * value)) for value in means)


def _shapes(processor: Any, mode: str) -> list[tuple[int, ...]]:
    from PIL.Image import new

    return [tuple(_pixels(processor, new(mode, size)).shape) for size in _PROBES]


def _resize(processor: Any, size: int) -> None:
    """Let a processor make square pictures of a size, in pixels: as before, all of it scaled alike where it crops."""
    square = {"height": size, "width": size}
    wanted = {name: value for name, value in dict(processor.size).items() if value}
    crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    if crop is not None:
        before = dict(crop)
        shorter = min(value for value in (before.get("height"), before.get("width")) if value)
        processor.size = _like(processor.size, {name: round(value * size / shorter) for name, value in wanted.items()})
        processor.crop_size = _like(crop, square)
    elif "shortest_edge" in wanted and getattr(processor, "crop_pct", None) is not None:
        processor.size = _like(processor.size, {"shortest_edge": size})  # it crops to that itself
    else:
        processor.size = _like(processor.size, square)


def _like(before: Any, values: dict[str, int]) -> Any:
    return dict(values) if isinstance(before, dict) else type(before)(**values)
