"""timm's policies of augmentation, whose lots are drawn from a seed of each picture.

timm draws from the generators of the whole process, which all threads share: what a picture becomes would depend on which of them
comes first, and the model's own lots on what was read meanwhile.
"""

from __future__ import annotations

import importlib.util
import random
import threading
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze_api.tasks.image_classification import ImageClassificationSpec

if TYPE_CHECKING:
    from PIL.Image import Image

    from unfreeze_trainer.models.image_input import ImageInput

_POLICIES = {"Original": "original", "OriginalR": "originalr", "V0": "v0", "V0R": "v0r", "ThreeAugment": "3a"}
"""timm's names of AutoAugment's."""
_SHIFT, _SHIFT_SHARE = 0.45, 0.3
"""Of a picture's side that a policy moves it by at most, as timm sets it for training."""


class _Lots(threading.local):
    """A thread's own generators."""

    python: random.Random
    numpy: np.random.RandomState


_LOTS = _Lots()


class _Random:
    """Python's module `random`, of this thread."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_LOTS.python, name)


class _Numpy:
    """numpy, whose `random` is of this thread."""

    def __getattr__(self, name: str) -> Any:
        return _LOTS.numpy if name == "random" else getattr(np, name)


class _ImageOps:
    """Pillow's ImageOps, as timm expects them: a picture of no bits is black, which Pillow 13 refuses."""

    def __getattr__(self, name: str) -> Any:
        from PIL import ImageOps

        return getattr(ImageOps, name)

    def posterize(self, image: Image, bits: int) -> Image:
        from PIL import ImageOps

        return ImageOps.posterize(image, bits) if bits else image.point([0] * 256 * len(image.getbands()))


@cache
def _timm() -> Any:
    """Return timm's module of policies, once more, with generators of its own."""
    spec = importlib.util.find_spec("timm.data.auto_augment")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module).update(random=_Random(), np=_Numpy(), ImageOps=_ImageOps())
    return module


def open_policy(options: ImageClassificationSpec, sees: ImageInput) -> Callable[[Image, int], Image] | None:
    """Return what makes of a picture, and of a seed, the picture varied; None where no policy is asked for."""
    made = _transform(options, sees)
    if made is None:
        return None

    def vary(image: Image, seed: int) -> Image:
        _LOTS.python, _LOTS.numpy = random.Random(seed), np.random.RandomState(seed)  # noqa: S311 - timm's own
        varied: Image = made(image)
        return varied

    return vary


def _transform(options: ImageClassificationSpec, sees: ImageInput) -> Any:
    fill = sees.fill if len(sees.fill) > 1 else sees.fill[0]
    side = min(sees.height, sees.width)
    given: dict[str, Any] = {"translate_const": int(side * _SHIFT), "img_mean": fill, "interpolation": sees.resample}
    if one := options.rand_augment:
        given["magnitude_std"] = one.magnitude_std
        return _timm().rand_augment_transform(
            f"rand-m{one.magnitude}-n{one.num_layers}-inc{int(one.increasing)}", given
        )
    if searched := options.auto_augment:
        given["magnitude_std"] = searched.magnitude_std
        return _timm().auto_augment_transform(_POLICIES[searched.policy], given)
    if mixed := options.aug_mix:
        given["translate_pct"] = _SHIFT_SHARE
        depth = f"-d{mixed.depth}" if mixed.depth else ""
        return _timm().augment_and_mix_transform(f"augmix-m{mixed.magnitude}-w{mixed.width}{depth}", given)
    return None
