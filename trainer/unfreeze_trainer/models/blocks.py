"""The blocks of a model, from its own structure: the units in which strategies freeze and unfreeze."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

EMBEDDINGS, LAYER, HEAD = "embeddings", "layer.", "head"


@dataclass(frozen=True)
class Block:
    """A part of a model that is frozen or trained as a whole."""

    name: str
    """embeddings, layer.0, layer.1, ..., what lies between the last layer and the head (pooler, norm), head."""
    parameters: tuple[str, ...]
    """As in named_parameters(), in its order; none in the head of a model that has none."""

    @property
    def is_layer(self) -> bool:
        """Whether it is one of a stack, and neither below nor above it."""
        return self.name.startswith(LAYER)


def of_head(blocks: Iterable[Block]) -> frozenset[str]:
    """Return the names of a head's parameters."""
    return frozenset(name for block in blocks if block.name == HEAD for name in block.parameters)


@dataclass
class _Parts:
    """Parameters by their place; together every one outside the head, once."""

    before: list[str]
    layers: list[list[str]]
    after: list[str]


def find_blocks(module: nn.Module, head_parameters: Collection[str], *, by_use: bool = True) -> list[Block]:
    """Divide a model into blocks, from input to output; every parameter is in exactly one, the head is last.

    timm models say themselves which parameter belongs to which layer (group_matcher, which timm's layer-wise learning
    rates use). Other models are divided by their stacks of layers. A layer that is itself a stack (a stage of a
    hierarchical model) is divided into its own layers.

    Parameters
    ----------
    module
        A bare transformers or timm model, on any device, meta included.
    head_parameters
        Parameters of the head, as in named_parameters(). Where there are none the topmost block is what lies above
        the layers, or the last layer.
    by_use
        Whether a table's norm that is declared behind the layers (DeBERTa-v3's of relative positions) is of the embeddings, and a pooler
        that is declared before them (Nomic's) lies above them, as they are used; else each is where it is declared.

    Notes
    -----
    - Tied weights are one parameter, in the block of its first name: a tied output layer trains with the embeddings.
    - Layers that share their weights (ALBERT) are one block: a part of the shared weights cannot be frozen.
    - Of an encoder and a decoder the encoder is below: embeddings, encoder layers, decoder layers.
    - Two towers (text and image, which meet at the top) stand side by side, aligned at the top: layer.11 is the last
      layer of both, so that unfreezing from the top opens both alike. What joins them lies above the layers.
    """
    names = [name for name, _ in module.named_parameters() if name not in head_parameters]
    group_matcher = getattr(module, "group_matcher", None)
    parts = _timm_layers(group_matcher, names) if callable(group_matcher) else _stack_layers(module, names, by_use)
    order = {name: index for index, name in enumerate(names)}
    blocks = [
        (EMBEDDINGS, parts.before),
        *((f"{LAYER}{i}", layer) for i, layer in enumerate(_divided(module, parts.layers))),
        (_neck_name(module, parts.after), parts.after),
    ]
    found = [Block(name, tuple(sorted(inside, key=order.__getitem__))) for name, inside in blocks if inside]
    head = tuple(name for name, _ in module.named_parameters() if name in head_parameters)
    return [*found, Block(HEAD, head)] if head else found


def _timm_layers(group_matcher: Callable[..., object], names: Sequence[str]) -> _Parts:
    """Sort parameters by timm's matcher: its first group is the stem, what no expression matches lies after."""
    from timm.models._manipulate import group_with_matcher

    matcher = group_matcher(coarse=False)
    # A name that no expression matches shows which group the unmatched parameters come out in.
    probe = ["\0"] if isinstance(matcher, dict) else []
    groups: dict[str, int] = group_with_matcher(
        ((name, None) for name in [*names, *probe]), matcher, return_values=False, reverse=True
    )
    neck = groups.pop(probe[0]) if probe else None
    first = min(groups.values(), default=0)
    middle = sorted({group for group in groups.values() if group not in (first, neck)})
    return _Parts(
        before=[name for name in names if groups[name] == first != neck],
        layers=[[name for name in names if groups[name] == group] for group in middle],
        after=[name for name in names if groups[name] == neck],
    )


def _stack_layers(module: nn.Module, names: Sequence[str], by_use: bool) -> _Parts:
    """Sort parameters by the model's stacks of layers.

    What lies before a stack belongs to its first layer, before the first one to the embeddings. Two things are known by
    their names, since models declare them on either side of the layers: embeddings (relative positions, BART's
    layernorm_embedding) are embeddings, and what is called final or out (OPT) lies after the layers. `by_use` as of `find_blocks`.
    """
    stacks = _stacks(module)
    # transformers' own word for a tower: its features can be had without the rest of the model.
    if len(stacks) > 1 and callable(getattr(module, "get_text_features", None)):
        return _towers(names, stacks)
    parts = _Parts([], [[] for stack in stacks for _ in stack], [])
    layer_of = _by_prefix([layer for stack in stacks for layer in stack])
    embeddings = {name for name, part in module.named_modules() if isinstance(part, nn.Embedding)}
    pending: list[str] = []
    latest = ""  # of a layer
    beside: str | None = None  # the module that has a table behind its layers, while nothing else follows
    for name in names:
        layer, owner = layer_of(name), name.rpartition(".")[0]
        around, _, called = owner.rpartition(".")
        if layer is not None:
            parts.layers[layer] += [*pending, name]
            pending, latest, beside = [], name, None
        elif owner in embeddings or "embed" in called:
            parts.before.append(name)
            beside = around if owner in embeddings and latest.startswith(f"{around}.") else None
        elif by_use and around == beside and is_norm(module.get_submodule(owner)):
            parts.before.append(name)
        elif latest:
            pending.append(name)
            beside = None
        else:
            last = called.startswith("final_") or called.endswith("_out") or (by_use and _of_pooler(name))
            (parts.after if last else parts.before).append(name)
    parts.after += pending
    parts.layers = [layer for layer in parts.layers if layer]
    return parts


_Stack = list[tuple[str, ...]]
"""Layers of a stack, each as the paths of its modules."""


def _stacks(module: nn.Module) -> list[_Stack]:
    """Return the outermost stacks that hold at least a quarter of the largest one's weights.

    Lists that stand side by side in one module and are equally long describe the same layers part by part (XLM's
    attentions and ffns, SegFormer's patch_embeddings and blocks): they are one stack.
    """
    found: list[tuple[str, int, int]] = []
    for name, part in module.named_modules():
        inside = name.rpartition(".")[0]
        if "embed" in inside.rpartition(".")[2]:  # positions by convolutions (data2vec's of sound): no layers
            continue
        if name and not any(name.startswith(f"{outer}.") for outer, _, _ in found) and _is_list(part):
            found.append((name, len(part), sum(parameter.numel() for parameter in part.parameters())))
    largest = max((size for _, _, size in found), default=0)
    stacks: dict[tuple[str, int], list[str]] = {}
    main = {(name.rpartition(".")[0], length) for name, length, size in found if size and 4 * size >= largest}
    for name, length, size in found:
        place = (name.rpartition(".")[0], length)
        if place in main and (length > 1 or 4 * size >= largest):
            # A list of one layer has no sibling to be known by.
            stacks.setdefault(place if length > 1 else (name, 1), []).append(name)
    return [[tuple(f"{name}.{i}" for name in lists) for i in range(length)] for (_, length), lists in stacks.items()]


def _is_list(part: nn.Module) -> bool:
    return isinstance(part, nn.ModuleList) or (isinstance(part, nn.Sequential) and _is_stack(part, plain=True))


def _is_stack(part: nn.Module, *, plain: bool) -> bool:
    """Tell whether a list holds layers rather than parts of one layer: at least half of its items are of one class.

    A layer has a norm and at least two other modules with weights; so convolutions, experts and the two halves of a T5
    layer are none. Lists of plain lists are stages or branches, which are not distinguished: they count where `plain`.
    """
    items = [item for item in part.children() if _has_weights(item)]
    common, count = Counter(map(type, items)).most_common(1)[0] if items else (nn.Module, 0)
    if count < max(2, len(items) / 2) or (common in (nn.Sequential, nn.ModuleList) and not plain):
        return False
    weighted = [
        part for part in next(i for i in items if type(i) is common).modules() if [*part.parameters(recurse=False)]
    ]
    norms = sum(map(is_norm, weighted))
    return norms > 0 and len(weighted) - norms > 1


def _has_weights(part: nn.Module) -> bool:
    return next(part.parameters(), None) is not None


def is_norm(part: nn.Module) -> bool:
    """Tell whether a module is a normalisation: torch's own, or one of a library that is called so and holds no other."""
    if isinstance(part, _NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm):
        return True
    called = "norm" in type(part).__name__.lower() and not isinstance(part, nn.Linear | _ConvNd)
    return called and not any(_has_weights(child) for child in part.children())


def _divided(module: nn.Module, layers: list[list[str]]) -> list[list[str]]:
    """Divide layers that are stages, until no layer holds more than a third of all or none can be divided.

    A layer that is nothing but a list of layers (Funnel's) is divided in any case; others are when exactly one stack in
    them holds at least half of their weights: several are branches that run beside each other. What is declared before
    the stack joins its first layer, what comes after it the last one.
    """
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    stacks = {
        path: [f"{path}.{name}" for name, _ in part.named_parameters()]
        for path, part in module.named_modules()
        if isinstance(part, nn.ModuleList | nn.Sequential) and _is_stack(part, plain=False)
    }

    def weights(names: Sequence[str]) -> int:
        return sum(sizes[name] for name in names)

    while True:
        coarse = max(map(weights, layers), default=0) * 3 > weights([name for layer in layers for name in layer])
        place = {name: index for index, layer in enumerate(layers) for name in layer}
        inside: list[list[str]] = [[] for _ in layers]
        for path, names in stacks.items():
            indices = {place.get(name) for name in names}
            index = indices.pop()
            if not indices and index is not None and not any(path.startswith(f"{o}.") for o in inside[index]):
                inside[index].append(path)
        divided: list[list[str]] = []
        for layer, paths in zip(layers, inside, strict=True):
            stack = module.get_submodule(paths[0]) if len(paths) == 1 else None
            share = weights(stacks[paths[0]]) / weights(layer) if stack else 0
            whole = share == 1 and isinstance(stack, nn.ModuleList)
            if stack and (whole or (coarse and share >= 0.5)):  # noqa: PLR2004 - a half
                divided += _items(stack, paths[0], layer)
            else:
                divided.append(layer)
        if len(divided) == len(layers):
            return layers
        layers = divided


def _items(stack: nn.Module, path: str, names: Sequence[str]) -> list[list[str]]:
    layer_of = _by_prefix([(f"{path}.{key}",) for key, item in stack.named_children() if _has_weights(item)])
    layers: list[list[str]] = [[]]
    for name in names:
        if layer_of(name) == len(layers):
            layers.append([])
        layers[-1].append(name)
    return layers


def _by_prefix(layers: Sequence[tuple[str, ...]]) -> Callable[[str], int | None]:
    """Return a function from a parameter to the layer that it lies in."""
    places = {path: index for index, paths in enumerate(layers) for path in paths}

    def find(name: str) -> int | None:
        path = name.rpartition(".")[0]
        while path and path not in places:
            path = path.rpartition(".")[0]
        return places.get(path)

    return find


def _towers(names: Sequence[str], stacks: Sequence[_Stack]) -> _Parts:
    """Lay towers side by side, aligned at the top."""
    depth = max(map(len, stacks))
    parts = _Parts([], [[] for _ in range(depth)], [])
    roots = [_root(stack, [other for other in stacks if other is not stack]) for stack in stacks]
    layer_of = [_by_prefix(stack) for stack in stacks]
    above = [False] * len(stacks)
    for name in names:
        tower = next((i for i, root in enumerate(roots) if name.startswith(f"{root}.")), None)
        if tower is None:
            parts.after.append(name)
            continue
        layer = layer_of[tower](name)
        if layer is not None:
            above[tower] = True
            parts.layers[depth - len(stacks[tower]) + layer].append(name)
        else:
            (parts.after if above[tower] else parts.before).append(name)
    return parts


def _root(stack: _Stack, others: Sequence[_Stack]) -> str:
    """Return the outermost module around a stack that holds none of the others."""
    path, elsewhere = stack[0][0], [other[0][0] for other in others]
    while (outer := path.rpartition(".")[0]) and not any(other.startswith(f"{outer}.") for other in elsewhere):
        path = outer
    return path


def _neck_name(module: nn.Module, names: Collection[str]) -> str:
    if any(map(_of_pooler, names)):
        return "pooler"
    shapes = {name: parameter.ndim for name, parameter in module.named_parameters()}
    return "norm" if all(shapes[name] == 1 for name in names) else "neck"


def _of_pooler(name: str) -> bool:
    return "pooler" in name.split(".")
