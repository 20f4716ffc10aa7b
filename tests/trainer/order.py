"""In which order a forward pass first uses each parameter: what proves the order of blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class _Uses(TorchFunctionMode):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.names = {id(parameter): name for name, parameter in module.named_parameters()}
        self.order: dict[str, None] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor | tuple):  # questions about a parameter (its shape) are no use of it
            self._note(args)
            self._note((kwargs or {}).values())
        return result

    def _note(self, values) -> None:
        for value in values:
            if isinstance(value, nn.Parameter):
                if id(value) in self.names:
                    self.order.setdefault(self.names[id(value)])
            elif isinstance(value, list | tuple):
                self._note(value)


def first_uses(module: nn.Module, forward: Callable[[], object]) -> list[str]:
    """Return the parameters that a forward pass uses, in the order of their first use."""
    with torch.no_grad(), _Uses(module) as uses:
        forward()
    return list(uses.order)
