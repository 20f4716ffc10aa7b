"""The mode of evaluation, from which nothing is left of earlier weights."""

from __future__ import annotations

from torch import nn


def to_evaluation(module: nn.Module) -> None:
    """Put a model into evaluation mode by way of training mode.

    LeViT and its kin (TinyViT, EfficientFormer, EfficientViT) keep the biases of their attention, one for each pair of places, from the
    first forward pass in evaluation mode on. transformers' LeViT makes them anew after train() alone: put straight from one
    evaluation mode into the next it answers with biases of weights that it had before.
    """
    module.train()
    module.eval()
