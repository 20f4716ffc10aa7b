"""BatchNorm as it is meant: of one value a channel, and with TensorFlow's decay in the place of torch's momentum."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_MOST = 0.5
"""Share of a new batch in running statistics: above it, it is no mean over batches."""
_TORCHS = 0.1


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


def count_once(module: nn.Module) -> None:
    """Have BatchNorms in training mode gather statistics of each batch once, where the model computes it twice.

    Gradient checkpointing computes a layer again while gradients go backward; a loss that couples its samples has all of them computed
    without gradients first. Their running statistics would be closer to the last batches than the momentum says.
    """
    for part in module.modules():
        if isinstance(part, _BatchNorm) and part.running_mean is not None:
            part.register_forward_pre_hook(_leave_statistics)
            # Computing again ends by an exception as soon as nothing more is needed.
            part.register_forward_hook(_gather_statistics, always_call=True)


def average_over_batches(module: nn.Module) -> None:
    """Give BatchNorms that have TensorFlow's decay as their momentum torch's own, as timm's and torchvision's models have it.

    transformers makes MobileNetV1's (0.9997), MobileNetV2's (0.997) and EfficientNet's (0.99) so: torch's momentum is the share of
    the new batch, and their running statistics would be those of the last batch alone. What the decay means, 0.003 of each batch, is
    for trainings of a hundred thousand steps: after 57 of them the statistics were still the pretrained ones, and a
    MobileNetV2 whose weights had moved had an accuracy of .21 and a loss of 34 on held-out clothes.
    """
    for part in module.modules():
        if isinstance(part, _BatchNorm) and part.momentum is not None and part.momentum > _MOST:
            part.momentum = _TORCHS


def _leave_statistics(part: Any, _inputs: Any) -> None:
    again = part.training and (not torch.is_grad_enabled() or torch._C._current_graph_task_id() != -1)  # noqa: SLF001 - as torch's own checkpoints
    part.left = (part.momentum, part.num_batches_tracked.clone()) if again else None
    if again:
        part.momentum = 0.0


def _gather_statistics(part: Any, _inputs: Any, _output: Any) -> None:
    if part.left:
        part.momentum, batches = part.left
        part.num_batches_tracked.copy_(batches)


def _spare(part: Any, inputs: Any) -> None:
    part.spared = part.training and inputs[0].numel() == inputs[0].shape[1]
    if part.spared:
        part.training = False


def _go_back(part: Any, _inputs: Any, _output: Any) -> None:
    if part.spared:
        part.training = True
