"""Experts of a mixture: transformers stacks their weights in parameters of three dimensions, which whoever looks for layers misses."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from unfreeze_api.spec.quantization import QuantizationSpec
from unfreeze_trainer.errors import JobError

_STACKED = 3
"""Dimensions: experts, and two of their weights."""
_BYTES = {"Int8": 1.0, "NF4": 0.5, "FP4": 0.5}
"""Of a quantised weight; its factors are left out."""
_FLOAT32 = 4


def experts(module: nn.Module) -> list[str]:
    """Return the names of the parameters that hold experts, none of a model without: those of modules that are called so."""
    return [
        f"{path}.{name}"
        for path, part in module.named_modules()
        if "Expert" in type(part).__name__
        for name, parameter in part.named_parameters(recurse=False)
        if parameter.ndim == _STACKED
    ]


def share(module: nn.Module, head: Collection[str]) -> float:
    """Return which part of the weights below the head are experts', 0 to 1."""
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters() if name not in head}
    return sum(sizes[name] for name in experts(module)) / sum(sizes.values())


def require_layers(module: nn.Module, head: Collection[str], spec: QuantizationSpec, where: str) -> None:
    """Refuse to quantise a mixture of experts: bitsandbytes quantises layers, and leaves experts in float32 without a word.

    Raises
    ------
    JobError
        InvalidModel, with what of the model would stay as it is, and how much smaller the whole would be.
    """
    if not experts(module):
        return
    weights = sum(parameter.numel() for parameter in module.parameters())
    layers = sum(
        part.weight.numel()
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and f"{name}.weight" not in head
    )
    smaller = _FLOAT32 * weights / (_FLOAT32 * (weights - layers) + _BYTES[spec.type] * layers)
    raise JobError(
        "InvalidModel",
        f"{where}: {share(module, head):.0%} of its weights are experts', which stand in no layer that bitsandbytes could quantise:"
        f" with spec.model.quantization {spec.type} it would be {smaller:.2f} times smaller. Remove quantization, or name a"
        " model without experts",
    )
