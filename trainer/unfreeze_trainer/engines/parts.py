"""The modules that blocks consist of, as far as an engine takes them one by one: to divide or to compile them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

import torch
from torch import nn

from unfreeze_trainer.errors import JobError

if TYPE_CHECKING:
    from unfreeze_trainer.models.blocks import Block


def parts_of(module: nn.Module, blocks: Sequence[Block]) -> list[nn.Module]:
    """Return the topmost modules that compute and whose parameters are all of one block, shared ones first.

    A module that stands in several places is a part by itself: each place may call it, as PEFT's prompts call the word
    embeddings before the model that they are in. A parameter that several modules have (tied weights) is in none: a share
    in one of them and the whole tensor in the others would go apart.
    """
    owners = Counter(id(parameter) for part in module.modules() for parameter in part.parameters(recurse=False))
    tied = {name for name, parameter in module.named_parameters() if owners[id(parameter)] > 1}
    found = [part for block in blocks for part in _parts(module, frozenset(block.parameters) - tied)]
    return list(dict.fromkeys([*_shared(module, tied), *found]))


def _shared(module: nn.Module, tied: AbstractSet[str]) -> Iterator[nn.Module]:
    places = Counter(id(part) for _, part in module.named_modules(remove_duplicate=False))
    for path, part in module.named_modules():
        own = [f"{path}.{name}" for name, _ in part.named_parameters(recurse=False)]
        if places[id(part)] > 1 and own and tied.isdisjoint(own):
            yield part


def _parts(part: nn.Module, block: Collection[str], path: str = "") -> Iterator[nn.Module]:
    names = [f"{path}{name}" for name, _ in part.named_parameters()]
    if not any(name in block for name in names):
        return
    container = isinstance(part, nn.ModuleList | nn.ModuleDict)  # nobody calls these
    # Nor, where activations are checkpointed, does timm call a stage, but each block of it; of several the stage is no part.
    container |= isinstance(part, nn.Sequential) and len(part) == 1
    if path and not container and all(name in block for name in names):
        yield part
        return
    for name, child in part.named_children():
        yield from _parts(child, block, f"{path}{name}.")


def compile_blocks(module: nn.Module, blocks: Sequence[Block]) -> None:
    """Compile each part of the blocks by itself with torch.compile, when it is first used.

    Layers of one class share what is compiled, and a phase change recompiles only what it makes different: a layer
    that is frozen, and the lowest one that trains, each once.

    Raises
    ------
    JobError
        There is no C++ compiler.
    """
    from torch import _dynamo as dynamo
    from torch._inductor import config

    compilers = (config.cpp.cxx,) if isinstance(config.cpp.cxx, str) else config.cpp.cxx
    if not any(shutil.which(compiler) for compiler in compilers if compiler):
        raise JobError(
            "CompilerMissing",
            "spec.training.compile needs a C++ compiler (g++) in the trainer's image: choose an image that has one in"
            " spec.template.image, or set compile to false",
        )
    found = parts_of(module, blocks)
    # Frozen or not, in training or not, one length of texts or any: variants of each class of layers.
    dynamo.config.recompile_limit = max(64, len(found))
    # With either of them torch 2.11 takes weights for unchanged that begin to ask for gradients: a layer that thaws gets none
    # (pytorch/pytorch#139476, mended by #177158).
    for shortcut in ("use_recursive_dict_tags_for_guards", "skip_tensor_guards_with_matching_dict_tags"):
        if hasattr(dynamo.config, shortcut):
            setattr(dynamo.config, shortcut, False)
    for part in found:
        part.forward = torch.compile(part.forward)  # hooks stay outside
