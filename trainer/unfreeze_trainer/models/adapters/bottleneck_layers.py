"""Bottleneck adapter modules (Houlsby et al. 2019, arXiv 1902.00751), and how an exported one is loaded.

This file is written beside every export of kind Adapter: it needs torch and safetensors, nothing of Unfreeze.

    import runpy
    load = runpy.run_path("FOLDER/bottleneck.py")["load"]
    model = load(base, "FOLDER")
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

NAME = "bottleneck"
"""Of the child that a module with an adapter has."""
CONFIG, WEIGHTS = "bottleneck_config.json", "bottleneck.safetensors"
_ACTIVATIONS: dict[str, type[nn.Module]] = {"ReLU": nn.ReLU, "GELU": nn.GELU, "SiLU": nn.SiLU, "Tanh": nn.Tanh}


class Bottleneck(nn.Module):
    """A narrow network beside a skip connection: x + up(activation(down(x))); at first x itself.

    Parameters
    ----------
    width
        Of x: its last dimension, or the channels of (samples, channels, height, width) where `convolution`.
    reduction_factor
        How many times narrower the middle is; it has at least one unit.
    non_linearity
        ReLU, GELU, SiLU or Tanh.
    convolution
        Work on channels, by 1 x 1 convolutions (Rebuffi et al. 2017, arXiv 1705.08045).
    """

    def __init__(self, width: int, reduction_factor: int, non_linearity: str, *, convolution: bool) -> None:
        super().__init__()
        middle = max(1, width // reduction_factor)
        self.down = nn.Conv2d(width, middle, 1) if convolution else nn.Linear(width, middle)
        self.activation = _ACTIVATIONS[non_linearity]()
        self.up = nn.Conv2d(middle, width, 1) if convolution else nn.Linear(middle, width)
        nn.init.normal_(self.down.weight, std=0.01)
        for parameter in (self.down.bias, self.up.weight, self.up.bias):
            assert parameter is not None
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of x."""
        out: Tensor = x + self.up(self.activation(self.down(x)))
        return out


def insert(model: nn.Module, targets: Mapping[str, int], options: Mapping[str, Any]) -> None:
    """Give modules an adapter on their output; the names of their own parameters stay.

    Parameters
    ----------
    model
        Changed in place.
    targets
        Full names of the modules, with the width of what they return.
    options
        reduction_factor and non_linearity.
    """
    for name, width in targets.items():
        part = model.get_submodule(name)
        part.add_module(NAME, Bottleneck(width, **options, convolution=isinstance(part, nn.Conv2d)))
        part.register_forward_hook(_adapt)


def _adapt(part: nn.Module, _: Any, output: Tensor) -> Tensor:
    adapted: Tensor = part.get_submodule(NAME)(output)
    return adapted


def load(model: nn.Module, folder: str) -> nn.Module:
    """Put the adapters and the head of an exported folder into its base model, and return it.

    Parameters
    ----------
    model
        The base, with as many outputs as the export has labels; changed in place.
    folder
        The export.

    Raises
    ------
    RuntimeError
        The base is another one: a module or a shape does not fit.
    """
    from safetensors.torch import load_file

    config = json.loads((Path(folder) / CONFIG).read_text())
    weights = load_file(Path(folder) / WEIGHTS)
    try:
        insert(model, config["targets"], {key: config[key] for key in ("reduction_factor", "non_linearity")})
    except AttributeError as error:
        raise RuntimeError(f"this is not the base of {folder}: {error}") from error
    places = dict(model.named_parameters()) | dict(model.named_buffers())
    if unknown := sorted(weights.keys() - places.keys()):
        raise RuntimeError(f"this is not the base of {folder}: it has no {', '.join(unknown[:5])}")
    with torch.no_grad():
        for name, tensor in weights.items():
            if places[name].shape != tensor.shape:
                raise RuntimeError(
                    f"{name} is {tuple(tensor.shape)} in {folder}, {tuple(places[name].shape)} in the model"
                )
            places[name].copy_(tensor)
    return model
