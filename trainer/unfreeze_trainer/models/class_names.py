"""Classifiers that encoders of pictures were pretrained with, and what their classes are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from unfreeze_trainer.models.bridge_layers import of_pictures

_NUMBERED = re.compile(r"LABEL_\d+")
"""What transformers calls a class without a name."""


class Classifier(NamedTuple):
    """A linear classifier."""

    weight: Tensor
    """(classes, width)."""
    bias: Tensor
    """(classes,)."""
    names: list[str]


def classifier_of(head: Any, names: Sequence[str] | None) -> Classifier | None:
    """Return a linear head with its names; None of another one, or where they are not as many as its outputs."""
    head = head[-1] if isinstance(head, nn.Sequential) and len(head) else head
    if not isinstance(head, nn.Linear) or not names or len(names) != head.out_features:
        return None
    bias = torch.zeros(head.out_features) if head.bias is None else head.bias.detach().float()
    return Classifier(head.weight.detach().float(), bias, [str(name) for name in names])


def timm_names(module: Any) -> list[str] | None:
    """Return what the classes of a model of timm are called: by its folder, or by how many they are those of ImageNet, with WordNet's glosses."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    config = module.pretrained_cfg
    if names := config.get("label_names"):
        said = config.get("label_descriptions") or {}
        return [str(said.get(name, name)) if isinstance(said, dict) else str(name) for name in names]
    subset = infer_imagenet_subset(module)
    return list(ImageNetInfo(subset).label_descriptions(detailed=True)) if subset else None


def transformers_names(config: Any) -> list[str] | None:
    """Return what the classes of a model of transformers are called; None where they are numbered."""
    names = [str(config.id2label[number]) for number in sorted(config.id2label)]
    return None if all(_NUMBERED.fullmatch(name) for name in names) else names


@torch.no_grad()
def reads_pooled(module: Any, classifier: Classifier, pixels: Tensor) -> bool:
    """Return whether a whole model's logits are those of its classifier on what `of_pictures` gives of its encoder."""
    values = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    logits = module(pixel_values=values).logits
    expected = functional.linear(of_pictures(module.base_model, values), classifier.weight, classifier.bias)
    return bool(torch.allclose(logits, expected, rtol=1e-3, atol=1e-3))
