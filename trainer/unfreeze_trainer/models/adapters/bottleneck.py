"""Bottleneck adapters in a model's blocks: where they go, and how they are written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from unfreeze_api.adapters.bottleneck import BottleneckSpec
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.adapters import bottleneck_layers as layers
from unfreeze_trainer.models.adapters.targets import find_targets, is_conv1d, narrows
from unfreeze_trainer.models.blocks import Block
from unfreeze_trainer.models.loading import seeded

_FIELD = "spec.adapter.bottleneck"
_ASIDE = frozenset({"downsample", "shortcut", "se", "attn_last"})
"""What timm and transformers call the skip connection of a residual block, and its gate of channels."""


def add_bottlenecks(module: nn.Module, blocks: Sequence[Block], spec: BottleneckSpec, *, seed: int) -> LoadedModel:
    """Put adapters on the outputs of a model's sub-layers, before their skip connections.

    Parameters
    ----------
    module
        The bare model, changed in place: its own parameters keep their names.
    blocks
        Its blocks; the last one is the head, which trains whole.
    spec
        Where, how narrow.
    seed
        Seed of the new weights.

    Raises
    ------
    JobError
        InvalidAdapter: the model has no layers of a known kind, or targetModules matches nothing.
    """
    head = blocks[-1]
    if spec.target_modules:
        names = find_targets(module, head.parameters, spec.target_modules, f"{_FIELD}.targetModules")
    else:
        layered = [block for block in blocks if block.is_layer]
        names = [name for block in layered for name in _outputs(module, block, houlsby=spec.placement == "Houlsby")]
    if not names:
        raise JobError(
            "InvalidAdapter",
            f"{_FIELD}: none of this model's blocks ends in a linear layer or a convolution that could be told apart from its"
            " structure; name the modules whose outputs are to be adapted in targetModules",
        )
    owner = {name: block.name for block in blocks for name in block.parameters}
    targets = {name: _width(module.get_submodule(name)) for name in names}
    with seeded(seed):
        layers.insert(module, targets, {"reduction_factor": spec.reduction_factor, "non_linearity": spec.non_linearity})
    mark = f".{layers.NAME}."
    new = [name for name, _ in module.named_parameters() if mark in name]
    members: dict[str, list[str]] = {block.name: [] for block in blocks}
    for name, _ in module.named_parameters():
        members[owner[name if mark not in name else f"{name.partition(mark)[0]}.weight"]].append(name)
    return LoadedModel(
        module, [Block(name, tuple(inside)) for name, inside in members.items()], frozenset({*new, *head.parameters})
    )


def _outputs(module: nn.Module, block: Block, *, houlsby: bool) -> list[str]:
    """Return the modules of a layer whose outputs are those of its sub-layers.

    The second linear layer of the feed-forward network is the last one that narrows what the layer before it has widened;
    the output layer of the attention is the last one before them that returns as many features. A layer without a
    feed-forward network (ResNet's) has its last convolution, but for those beside it.
    """
    own = frozenset(block.parameters)
    parts = {name: part for name, part in module.named_modules() if f"{name}.weight" in own}
    linear = [part for part in parts.values() if isinstance(part, nn.Linear) or is_conv1d(part)]
    names = {id(part): name for name, part in parts.items()}
    for index in range(len(linear) - 1, 0, -1):
        # Gates stand beside what they open in one layer, which is twice as wide then, or in a layer of their own.
        inner = _inputs(linear[index])
        if narrows(linear[index]) and _width(linear[index - 1]) in (inner, 2 * inner):
            feeds = {position for position in range(index) if _width(linear[position]) in (inner, 2 * inner)}
            width = _width(linear[index])
            attention = [
                part for position, part in enumerate(linear[:index]) if position not in feeds and _width(part) == width
            ]
            return [names[id(part)] for part in (*(attention[-1:] if houlsby else ()), linear[index])]
    convolutions = [name for name, part in parts.items() if isinstance(part, nn.Conv2d)]
    return [name for name in convolutions if _ASIDE.isdisjoint(name.split("."))][-1:]


def _width(part: nn.Module) -> int:
    """Return how many features a module returns."""
    if is_conv1d(part):
        return int(next(part.parameters()).shape[1])
    return (
        part.out_features if isinstance(part, nn.Linear) else len(next(part.parameters()))
    )  # 4-bit weights are packed


def _inputs(part: nn.Module) -> int:
    return part.in_features if isinstance(part, nn.Linear) else int(next(part.parameters()).shape[0])


def save_bottlenecks(module: nn.Module, head: Sequence[str], folder: Path, spec: BottleneckSpec, base: str) -> None:
    """Write adapters and head, with the file that loads them.

    Parameters
    ----------
    module
        The trained model.
    head
        Parameters of its head.
    folder
        Where to; it exists.
    spec
        What the adapters were made from.
    base
        The base model's folder, for whoever reads the configuration.
    """
    from safetensors.torch import save_file

    mark = f".{layers.NAME}."
    weights = {
        name: parameter.detach().contiguous()
        for name, parameter in module.named_parameters()
        if mark in name or name in head
    }
    trained = {name.rpartition(".")[0] for name in head}  # a BatchNorm there has gathered statistics
    weights |= {name: buffer for name, buffer in module.named_buffers() if name.rpartition(".")[0] in trained}
    targets = {
        name.removesuffix(f".{layers.NAME}"): part.up.weight.shape[0]
        for name, part in module.named_modules()
        if isinstance(part, layers.Bottleneck)
    }
    config = {
        "base_model_name_or_path": base,
        "placement": spec.placement,
        "reduction_factor": spec.reduction_factor,
        "non_linearity": spec.non_linearity,
        "targets": targets,
    }
    save_file(weights, folder / layers.WEIGHTS, metadata={"format": "pt"})
    (folder / layers.CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    shutil.copyfile(layers.__file__, folder / "bottleneck.py")
