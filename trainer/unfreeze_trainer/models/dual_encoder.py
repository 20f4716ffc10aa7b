"""Models of transformers that see and read, such as CLIP: their own classes, with outputs that a contrast of any workers can take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.bridge import MAX_LOGIT_SCALE, scaled
from unfreeze_trainer.models.loading import be_quiet, check_complete, failed, from_folder, seeded

KINDS = ("clip", "siglip")
"""transformers' names of those that are known to train: proven in tests, by their own classes."""
SIGMOID = ("siglip",)
"""Those of them that were trained by a sigmoid of each pair."""
_HEADS = ("visual_projection", "text_projection", "vision_model.head", "text_model.head")
_SCALES = ("logit_scale", "logit_bias")
_TEXTS = 4
"""Texts of each sample that are read at a time."""
_SEES = frozenset({"vision_model", "visual_projection"})


class _Paired:
    """Lies over one of transformers' classes."""

    logit_scale: nn.Parameter
    main_input_name = "pixel_values"
    """By which PEFT's classes for texts alone are not taken for it."""
    highest_scale = MAX_LOGIT_SCALE
    """Logarithm at which the factor of cosines stays."""

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Return the vectors of pictures and texts, whose products are the model's logits.

        Parameters
        ----------
        pixel_values
            Pictures, (samples, channels, height, width).
        input_ids, attention_mask
            Texts, (texts, length); the first ones of all samples, then their second ones and so on.

        Returns
        -------
        Tensor
            float32 of shape (samples, 1 and the texts of each, width), the picture first; with a bias of the logits one wider:
            there stand the bias with the picture and 1 with each text. The factor of cosines is kept at its highest; its
            gradient goes on, so that it may come back.
        """
        model: Any = self
        assert pixel_values is not None
        images = model.get_image_features(pixel_values=pixel_values).pooler_output
        # Of many prompts some at a time; so often on every worker, whose samples bring equally many.
        parts = [
            None if given is None else torch.split(given, _TEXTS * len(images)) for given in (input_ids, attention_mask)
        ]
        texts = [
            model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
            for ids, mask in zip_longest(*(part or () for part in parts))
        ]
        vectors = torch.cat([images, *texts]).float()
        vectors = scaled(vectors, self.logit_scale, self.highest_scale)
        vectors = vectors.view(-1, len(images), vectors.shape[1]).transpose(0, 1)
        bias = getattr(model, "logit_bias", None)
        if bias is None:
            return vectors
        more = torch.ones_like(vectors[..., :1])
        more = torch.cat([more[:, :1] * bias.float(), more[:, 1:]], dim=1)
        return torch.cat([vectors, more], dim=-1)


@cache
def _paired(kind: type) -> type:
    """Return a class of transformers with these outputs: it is saved under its own name."""
    return type(kind.__name__, (_Paired, kind), {"__module__": kind.__module__})


def load_dual_encoder(path: str, where: str, config: Any, *, random: bool, seed: int) -> tuple[Any, frozenset[str]]:
    """Load a model that sees and reads in float32, in training mode.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    config
        Of the folder, of one of KINDS.
    random
        Keep the architecture only: all weights are drawn from `seed`.
    seed
        Seed of new weights.

    Returns
    -------
    tuple
        The model, and the parameters of its head: what brings both towers' outputs into one space, and factor and bias of logits.

    Raises
    ------
    JobError
        InvalidModel: it cannot be loaded, or lacks weights.
    """
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    be_quiet()
    loader: Any = MODEL_MAPPING[type(config)]
    fresh: set[str] = set()
    try:
        with seeded(seed):
            if random:
                module: Any = loader._from_config(config, dtype=torch.float32)  # noqa: SLF001 - what Auto calls
            else:
                module, fresh = from_folder(loader, path, config)
    except Exception as error:  # a broken folder is broken in many ways, and none of them goes away on a retry
        raise failed(f"{where}: the model cannot be loaded", error, path) from error
    head = _head(module)
    check_complete(module, head, fresh, where)
    if lost := sorted(head & fresh):
        raise JobError(
            "InvalidModel",
            f"{where}: the weights lack {', '.join(lost[:3])} ({len(lost)} parameters that join both towers): the folder holds one"
            " tower of the model alone: name the whole model",
        )
    kind: type = type(module)
    module.__class__ = _paired(kind)
    for name in _SCALES:
        if (scalar := getattr(module, name, None)) is not None:  # what divides weights takes no scalars
            setattr(module, name, nn.Parameter(scalar.detach().reshape(1)))
    if not random:  # SigLIP's own are beyond 100, and what a base gives is not to change
        module.highest_scale = max(MAX_LOGIT_SCALE, module.logit_scale.item())
    return module.train(), head


def _head(module: nn.Module) -> frozenset[str]:
    return frozenset(
        name
        for name, _ in module.named_parameters()
        if name in _SCALES or name.startswith(tuple(f"{part}." for part in _HEADS))
    )


def of_pictures(module: nn.Module) -> frozenset[str]:
    """Return the parameters of the tower that sees, its projection among them, of a model with an adapter or without."""
    return frozenset(name for name, _ in module.named_parameters() if not _SEES.isdisjoint(name.split(".")))


@contextmanager
def as_in_library(module: Any) -> Iterator[None]:
    """Have a model be as transformers has it: factor and bias as its class declares them, the factor at its highest at most."""
    before = {name: getattr(module, name) for name in _SCALES if hasattr(module, name)}
    shape = () if "logit_bias" not in before else (1,)
    for name, parameter in before.items():
        value = parameter.detach().reshape(shape).clone()
        if name == "logit_scale":
            value = value.clamp(max=module.highest_scale)
        setattr(module, name, nn.Parameter(value))
    try:
        yield
    finally:
        for name, parameter in before.items():
            setattr(module, name, parameter)
