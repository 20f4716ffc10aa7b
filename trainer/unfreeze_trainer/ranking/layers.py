"""The features that each part of a model makes of samples, found by running it: one vector a sample and place.

A place is a layer of the model, or what its head reads; tokens and pixels are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unfreeze_trainer.features.cut import MASK, Batch, length_of
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.blocks import HEAD, Block
from unfreeze_trainer.models.padding import Frames, frames_of
from unfreeze_trainer.ranking.order import READ

PICTURES = "images"
"""What a batch calls pictures, (samples, channels, height, width)."""
_TOKENS, _PICTURE = 3, 4
"""Dimensions of the output of a layer that has a vector for each token, or for each place of a picture."""


def features(
    loaded: LoadedModel,
    forward: Callable[[nn.Module, Batch], object],
    batches: Iterable[tuple[Sequence[int], Batch]],
    rows: int,
) -> dict[str, np.ndarray]:
    """Run a model on samples and return what each place makes of them.

    Parameters
    ----------
    loaded
        The model, on its device; put into evaluation mode.
    forward
        Calls it.
    batches
        Each with the indices of its samples; tensors on the model's device.
    rows
        How many samples there are.

    Returns
    -------
    dict
        Float32 of shape (rows, width) for each place from input to output, `READ` last; the mean of layers (`mean_of`) is not in it.
        Rows that no batch has are NaN. A place that gives vectors in some batches alone is left out: its samples do not come first, but
        for the batch that has as many as tokens.
    """
    module = loaded.module.eval()
    frames = frames_of(module)
    found: dict[str, np.ndarray] = {}
    lost: set[str] = set()
    with torch.inference_mode(), watched(module, loaded.blocks) as kept:
        for indices, batch in batches:
            kept.clear()
            forward(module, batch)
            samples = len(next(iter(batch.values())))
            for place, value in kept.items():
                pooled = pooled_rows(value, batch, samples, frames, further=True)
                if pooled is None:
                    lost.add(place)
                    continue
                whole = found.setdefault(place, np.full((rows, pooled.shape[1]), np.nan, dtype=np.float32))
                if whole.shape[1] != pooled.shape[1]:  # as wide as a batch is long
                    lost.add(place)
                    continue
                whole[np.asarray(indices)] = pooled.float().cpu().numpy()
    names = [block.name for block in loaded.blocks if block.is_layer] + [READ]
    return {name: found[name] for name in names if name in found and name not in lost}


def mean_of(places: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return the mean over the layers that are as wide as the topmost; None where there are not two of them.

    Averages over layers say more of what fine-tuning makes of a model than any one layer does (Garbas et al. 2024, arXiv 2409.05997).
    """
    layers = [values for name, values in places.items() if name != READ]
    alike = [values for values in layers if values.shape[1] == layers[-1].shape[1]]
    return np.mean(alike, axis=0) if len(alike) > 1 else None


@contextmanager
def watched(module: nn.Module, blocks: Sequence[Block]) -> Iterator[dict[str, Tensor]]:
    """Yield what is filled, in each forward pass, with the last output of each layer and the input of the head."""
    kept: dict[str, Tensor] = {}

    def after(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if (tensor := _first(output)) is not None:
            kept[name] = tensor

    def before(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if READ not in kept and (tensor := _first((inputs, named))) is not None:
            kept[READ] = tensor

    handles = []
    for block in blocks:
        for part in _outermost(module, block):
            if block.is_layer:
                handles.append(part.register_forward_hook(partial(after, block.name)))
            elif block.name == HEAD:
                handles.append(part.register_forward_pre_hook(before, with_kwargs=True))
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _outermost(module: nn.Module, block: Block) -> list[nn.Module]:
    """Return the largest modules all of whose parameters belong to a block."""
    own, found = set(block.parameters), list[tuple[str, nn.Module]]()
    for path, part in module.named_modules():
        names = {name for name, _ in part.named_parameters(prefix=path)}
        if names and names <= own and not any(path.startswith(f"{outer}.") for outer, _ in found):
            found.append((path, part))
    return [part for _, part in found]


def _first(values: Any) -> Tensor | None:
    """Return the first tensor of numbers among what a module takes or gives."""
    leaves = pytree.tree_leaves(values)
    return next((leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()), None)


def pooled_rows(
    value: Tensor, batch: Batch, samples: int, frames: Frames | None = None, *, further: bool = False
) -> Tensor | None:
    """Return a vector for each sample, (samples, width); None where the samples do not come first.

    Tokens, and moments of clips by `frames`, are averaged without padding, places of a picture all. Channels come first unless the
    two dimensions that are to each other as the picture's sides, or else alike, say otherwise. `further` says that tokens beyond the batch's length are padding of the model's own.
    """
    if value.ndim < 2 or value.ndim > _PICTURE or len(value) != samples:  # noqa: PLR2004 - samples and width
        return None
    if value.ndim == _TOKENS:
        if frames is not None and frames.after and value.shape[1] == frames.whole:
            kept = frames.kept(-1, value.mT).mT.to(value.dtype)
            return (value * kept).sum(1) / kept.sum(1)
        if further and MASK in batch:  # to whole windows of attention
            value = value[:, : length_of(batch)]
        if value.shape[1] == length_of(batch) and MASK in batch:
            mask = batch[MASK].to(value.dtype)[..., None]
            return (value * mask).sum(1) / mask.sum(1).clamp(min=1)
        return value.mean(1)
    if value.ndim == _PICTURE:
        first, second, third = value.shape[1:]
        high, wide = batch[PICTURES].shape[-2:] if PICTURES in batch else (1, 1)
        last = first == second != third
        if high != wide:
            last = abs(first / second - high / wide) < abs(second / third - high / wide)
        return value.mean((1, 2) if last else (2, 3))
    return value
