"""The last layer of a head, whose outputs are the model's: what a regression's export gives in the units of its data."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from unfreeze_trainer.errors import JobError

Scale = tuple[Sequence[float], Sequence[float]]
"""Factor and offset of each output."""
_COPY = ".modules_to_save.default"
"""Where PEFT keeps the head that it trains, below the one of the base."""


def output_layer(module: nn.Module, head: Collection[str], outputs: int) -> str | None:
    """Return the name of a bare model's output layer: the last linear one of its head with so many outputs and a bias.

    Parameters
    ----------
    module
        The bare model.
    head
        Parameters of its head.
    outputs
        Of the model.
    """
    found = [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and f"{name}.bias" in head and part.out_features == outputs
    ]
    return found[-1] if found else None


def require_output_layer(module: nn.Module, head: Collection[str], outputs: int, where: str, field: str) -> str:
    """Return the name of the output layer. JobError InvalidModel where there is none that numbers can be shifted by."""
    if name := output_layer(module, head, outputs):
        return name
    raise JobError(
        "InvalidModel",
        f"{where}: the head of {type(module).__name__} does not end in a linear layer with a bias, which numbers in their own"
        f" units need. Set {field}.pooling to LastToken (decoders) or Mean: such heads have one",
    )


@contextmanager
def rescaled(module: nn.Module, name: str, scale: Scale) -> Iterator[None]:
    """Let a model give `factor * output + offset` within, by the weights of its output layer.

    Parameters
    ----------
    module
        With an adapter or without.
    name
        Of the output layer in the bare model.
    scale
        Factor and offset.
    """
    layer = _layer(module, name)
    before = layer.weight.detach().clone(), layer.bias.detach().clone()
    rescale(layer, scale)
    try:
        yield
    finally:
        with torch.no_grad():
            layer.weight.copy_(before[0])
            layer.bias.copy_(before[1])


def _layer(module: nn.Module, name: str) -> nn.Linear:
    [layer] = (
        part
        for path, part in module.named_modules()
        if isinstance(part, nn.Linear)
        and f".{path}".replace(_COPY, "").endswith(f".{name}")
        and "original_module" not in path
    )
    return layer


@torch.no_grad()
def rescale(layer: nn.Linear, scale: Scale, *, back: bool = False) -> None:
    """Change a layer in place so that each output is multiplied by a factor, and an offset is added; or back."""
    factor, offset = (torch.tensor(values, dtype=torch.float64) for values in scale)
    weight, bias = layer.weight.double(), layer.bias.double()
    if back:
        weight, bias = weight / factor[:, None], (bias - offset) / factor
    else:
        weight, bias = weight * factor[:, None], bias * factor + offset
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
