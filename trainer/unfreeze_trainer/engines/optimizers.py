"""Optimizers, the same for every engine and for a reference without any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MOMENTS = {"AdamW": ("exp_avg", "exp_avg_sq"), "SGD": ("momentum_buffer",)}
"""What the optimizers keep of each parameter, in its shape; AdamW counts its steps beside."""


class SGDW(torch.optim.SGD):
    """SGD with momentum and decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 1)."""

    def __init__(self, groups: list[dict[str, Any]], *, momentum: float) -> None:
        super().__init__(
            [{**group, "weight_decay": 0.0, "decoupled": group["weight_decay"]} for group in groups],
            lr=0.0,
            momentum=momentum,
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Shrink the weights by lr * decay, then take SGD's step."""
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            if trained and group["decoupled"]:
                torch._foreach_mul_(trained, 1 - group["lr"] * group["decoupled"])
        return super().step(closure)


def build_optimizer(kind: str, groups: Sequence[tuple[list[Tensor], float, float]]) -> torch.optim.Optimizer:
    """Return the optimizer of (parameters, learning rate, weight decay) groups: AdamW (.9, .999, 1e-8) or SGDW (.9)."""
    dicts = [{"params": tensors, "lr": lr, "weight_decay": decay} for tensors, lr, decay in groups]
    if kind == "SGD":
        return SGDW(dicts, momentum=0.9)
    return torch.optim.AdamW(dicts, lr=0.0, betas=(0.9, 0.999), eps=1e-8, fused=True)


def take_step(optimizer: torch.optim.Optimizer, skip: Tensor) -> None:
    """Take a step, unless `skip` (bool without dimensions, on the device of the weights) says that gradients are not finite.

    AdamW decides on the device, as it does for torch's GradScaler: weights, moments and count of steps stay as they are.
    """
    if isinstance(optimizer, torch.optim.AdamW):
        optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
        optimizer.step()
    elif ~skip:  # a truth, which estimates answer with True
        optimizer.step()
