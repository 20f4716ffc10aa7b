"""Padding that a model does not hear: what it says of a clip does not depend on the others in the batch.

The masks of transformers' speech models keep padding out of attention and out of the mean over time. Where a model mixes
moments in another way, padding still counts: in the statistics of a GroupNorm over time (wav2vec2-base and all with
feat_extract_norm "group"), and in convolutions over positions (data2vec, conformers). Here both leave it out; what is
computed of a clip is what its model computes of it alone, and the weights keep their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Frames:
    """How many moments each clip of the batch at hand has, after each convolution of the feature encoder."""

    def __init__(self) -> None:
        self.whole = 0
        """Moments of each clip that the encoder reads, those of padding among them."""
        self.after: list[Tensor] = []
        """int64 of shape (samples,) for each convolution, and last for what the encoder reads; empty without a mask."""

    def note(self, convolutions: list[nn.Conv1d], mask: Tensor | None) -> None:
        """Count the moments of the clips in a mask, (samples, values); of all where there is none."""
        self.after = []
        if mask is None:
            return
        length, self.whole = mask.sum(dim=-1), mask.shape[-1]
        for convolution in convolutions:
            length = (length - convolution.kernel_size[0]) // convolution.stride[0] + 1
            self.whole = (self.whole - convolution.kernel_size[0]) // convolution.stride[0] + 1
            self.after.append(length)

    def kept(self, number: int, values: Tensor) -> Tensor:
        """Return where there is no padding in (samples, channels, moments), bool of shape (samples, 1, moments)."""
        moments = torch.arange(values.shape[-1], device=values.device)
        return (moments < self.after[number][:, None])[:, None]


class MaskedGroupNorm(nn.GroupNorm):
    """A GroupNorm over time whose statistics leave out padding."""

    frames: Frames
    number: int

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return normalised values, (samples, channels, moments); those of padding have no meaning."""
        if not self.frames.after:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            values = input.float().reshape(len(input), self.num_groups, -1, input.shape[-1])
            kept = self.frames.kept(self.number, input)[:, None]
            count = kept.sum(dim=(-2, -1), keepdim=True) * values.shape[2]
            mean = (values * kept).sum(dim=(-2, -1), keepdim=True) / count
            centred = (values - mean) * kept
            variance = centred.square().sum(dim=(-2, -1), keepdim=True) / count
            normal = (centred * (variance + self.eps).rsqrt()).flatten(1, 2)
            if self.affine:
                normal = normal * self.weight.float()[:, None] + self.bias.float()[:, None]
        return normal.to(input.dtype)


def hide_padding(module: nn.Module) -> None:
    """Keep padding out of all that a speech model computes of clips; others are left as they are.

    Parameters
    ----------
    module
        A bare classifier of transformers. What is called with a mask notes it for what lies within.
    """
    body: Any = getattr(module, "base_model", module)
    encoder = getattr(body, "feature_extractor", None)
    if encoder is None or not hasattr(encoder, "conv_layers"):
        return
    body.heard = frames = Frames()
    convolutions = [layer.conv for layer in encoder.conv_layers]
    body.register_forward_pre_hook(_noting(frames, convolutions), with_kwargs=True)
    for number, layer in enumerate(encoder.conv_layers):
        norm = getattr(layer, "layer_norm", None)
        if isinstance(norm, nn.GroupNorm):
            masked = MaskedGroupNorm(norm.num_groups, norm.num_channels, norm.eps, norm.affine)
            masked.weight, masked.bias = norm.weight, norm.bias
            masked.frames, masked.number = frames, number
            layer.layer_norm = masked
    inside = {id(part) for part in encoder.modules()}
    for part in body.modules():
        if isinstance(part, nn.Conv1d) and id(part) not in inside and part.padding not in (0, (0,), "valid"):
            part.register_forward_pre_hook(_clearing(frames))


def frames_of(module: nn.Module) -> Frames | None:
    """Return how many moments each clip of the newest batch has in a model; None where `hide_padding` has left it as it is."""
    found = (getattr(part, "heard", None) for part in module.modules())
    return next((frames for frames in found if isinstance(frames, Frames)), None)


def _noting(frames: Frames, convolutions: list[nn.Conv1d]) -> Any:
    def note(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        frames.note(convolutions, kwargs.get("attention_mask", args[1] if len(args) > 1 else None))

    return note


def _clearing(frames: Frames) -> Any:
    def clear(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        values, *others = args
        return (values * frames.kept(-1, values), *others) if frames.after else None

    return clear
