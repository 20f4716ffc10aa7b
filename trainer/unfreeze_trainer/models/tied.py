"""The output layer of a decoder, and whether its weights are those of the embeddings of tokens."""

from __future__ import annotations

from typing import Any

from torch import nn


def output_layer(module: Any) -> nn.Module | None:
    """Return what gives the logits of tokens; None in a model that gives none."""
    found: nn.Module | None = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    return found


def tied_layers(module: Any) -> list[nn.Module]:
    """Return output layer and embeddings of tokens where both have the same weights; nothing otherwise."""
    outputs = output_layer(module)
    if outputs is None:
        return []
    inputs = module.get_input_embeddings()
    return [outputs, inputs] if getattr(outputs, "weight", None) is getattr(inputs, "weight", inputs) else []
