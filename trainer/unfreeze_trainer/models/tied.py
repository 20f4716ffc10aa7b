"""The output layer of a decoder, and whether its weights are those of the embeddings of tokens."""

from __future__ import annotations

from typing import Any

from torch import nn


def output_layer(module: Any) -> nn.Module | None:
    """Return what gives the logits of tokens; None in a model that gives none."""
    found: nn.Module | None = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    return found


def tied_layers(module: Any) -> list[nn.Module]:
    """Return the modules that have the weights of the embeddings of tokens, or of the output layer, where several do.

    These are the output layer of a decoder with tied weights, and the embeddings that encoder and decoder have of their own (T5, BART).
    """
    found: list[nn.Module] = []
    for whole in (output_layer(module), _embeddings(module)):
        weight = _own(whole)
        same = [part for _, part in module.named_modules(remove_duplicate=False) if _own(part) is weight]
        if weight is not None and len(same) > 1:
            found += [part for part in same if all(part is not other for other in found)]
    return found


def _own(part: nn.Module | None) -> nn.Parameter | None:
    """Return the weight that a module has itself: as an attribute it may be a copy (own_type.py)."""
    return None if part is None else part._parameters.get("weight")  # noqa: SLF001


def _embeddings(module: Any) -> nn.Module | None:
    """Return the embeddings of tokens; None in a model that reads none."""
    try:
        found: nn.Module | None = module.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return found
