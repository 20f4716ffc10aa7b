"""The blocks of a model, from its own structure: the units in which strategies freeze and unfreeze."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from torch import nn

EMBEDDINGS, HEAD = "embeddings", "head"


@dataclass(frozen=True)
class Block:
    """A part of a model that is frozen or trained as a whole."""

    name: str
    """embeddings, layer.0, layer.1, ..., what lies between the last layer and the head (pooler, norm), head."""
    parameters: tuple[str, ...]
    """As in named_parameters(), in its order; never empty."""


def find_blocks(module: nn.Module, head_parameters: Collection[str]) -> list[Block]:
    """Divide a model into blocks, from input to output; every parameter is in exactly one, the head is last.

    timm models say themselves which parameter belongs to which layer (group_matcher, which timm's layer-wise learning
    rates use). Other models are divided by their stacks: the outermost ModuleLists that hold most of the weights.

    Parameters
    ----------
    module
        A bare transformers or timm model.
    head_parameters
        Parameters of the head, as in named_parameters(); not empty.
    """
    names = [name for name, _ in module.named_parameters() if name not in head_parameters]
    group_matcher = getattr(module, "group_matcher", None)
    place = _timm_layers(group_matcher, names) if callable(group_matcher) else _stack_layers(module, names)
    layers = sorted({place[name] for name in names if place[name] not in (_BEFORE, _AFTER)})
    blocks = [
        (EMBEDDINGS, [name for name in names if place[name] == _BEFORE]),
        *((f"layer.{i}", [name for name in names if place[name] == layer]) for i, layer in enumerate(layers)),
    ]
    after = [name for name in names if place[name] == _AFTER]
    blocks.append((_neck_name(module, after), after))
    blocks.append((HEAD, [name for name, _ in module.named_parameters() if name in head_parameters]))
    return [Block(name, tuple(parameters)) for name, parameters in blocks if parameters]


_BEFORE, _AFTER = -1, 1 << 30


def _timm_layers(group_matcher: Callable[..., object], names: Iterable[str]) -> dict[str, int]:
    """Return the layer of each parameter by timm's matcher: its first group is the stem, unmatched ones the neck."""
    from timm.models._manipulate import group_with_matcher

    matcher = group_matcher(coarse=False)
    # A name that no expression matches shows which group the unmatched parameters come out in.
    probe = ["\0"] if isinstance(matcher, dict) else []
    groups: dict[str, int] = group_with_matcher(
        ((name, None) for name in [*names, *probe]), matcher, return_values=False, reverse=True
    )
    neck = groups.pop(probe[0]) if probe else None
    first = min(groups.values(), default=0)
    return {name: _AFTER if group == neck else _BEFORE if group == first else group for name, group in groups.items()}


def _stack_layers(module: nn.Module, names: Iterable[str]) -> dict[str, int]:
    """Return the layer of each parameter by the model's stacks of layers.

    What lies before a stack belongs to its first layer, before the first one to the embeddings; embeddings that are
    declared after the layers (relative positions) are embeddings all the same.
    """
    stacks = _stacks(module)
    prefixes = [f"{stack}.{i}." for stack, length in stacks for i in range(length)]
    embeddings = {name for name, part in module.named_modules() if isinstance(part, nn.Embedding)}
    place: dict[str, int] = {}
    pending: list[str] = []
    last = -1
    for name in names:
        layer = next((i for i, prefix in enumerate(prefixes) if name.startswith(prefix)), None)
        if layer is not None:
            place[name] = last = layer
            place.update(dict.fromkeys(pending, layer))
            pending = []
        elif last < 0 or name.rpartition(".")[0] in embeddings:
            place[name] = _BEFORE
        else:
            pending.append(name)
    return place | dict.fromkeys(pending, _AFTER)


def _stacks(module: nn.Module) -> list[tuple[str, int]]:
    """Return name and length of each outermost ModuleList that holds at least a quarter of the largest one's weights."""
    found: list[tuple[str, int, int]] = []
    for name, part in module.named_modules():
        if isinstance(part, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer, _, _ in found):
            found.append((name, len(part), sum(parameter.numel() for parameter in part.parameters())))
    largest = max((size for _, _, size in found), default=0)
    return [(name, length) for name, length, size in found if size and 4 * size >= largest]


def _neck_name(module: nn.Module, names: Collection[str]) -> str:
    if any("pooler" in name.split(".") for name in names):
        return "pooler"
    shapes = {name: parameter.ndim for name, parameter in module.named_parameters()}
    return "norm" if all(shapes[name] == 1 for name in names) else "neck"
