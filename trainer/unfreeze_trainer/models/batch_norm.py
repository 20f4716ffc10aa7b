"""BatchNorm where a batch has one value a channel: one sample, before a layer that knows no places."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def accept_single_values(module: nn.Module) -> None:
    """Have BatchNorms in training mode use their running statistics for a batch that has one value a channel.

    One value has no variance: torch refuses it. A micro batch has one sample where a worker's share, an epoch's last batch
    or a slice of an accumulation is that short, and where a row of padding stands in for an empty share. Batches of more
    values are left as they are; so are BatchNorms without running statistics.
    """
    for part in module.modules():
        if isinstance(part, _BatchNorm) and part.running_mean is not None:
            part.register_forward_pre_hook(_spare)
            part.register_forward_hook(_go_back)


def _spare(part: Any, inputs: Any) -> None:
    part.spared = part.training and inputs[0].numel() == inputs[0].shape[1]
    if part.spared:
        part.training = False


def _go_back(part: Any, _inputs: Any, _output: Any) -> None:
    if part.spared:
        part.training = True
