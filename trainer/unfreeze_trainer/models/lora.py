"""LoRA through PEFT, for transformers and timm models alike (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from unfreeze_api.spec import LoraSpec
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.text import seeded
from unfreeze_trainer.phases.blocks import HEAD, Block

ALL_LINEAR = "all-linear"
_PREFIX = "base_model.model."


def add_lora(module: nn.Module, blocks: Sequence[Block], lora: LoraSpec, *, seed: int, base: str) -> LoadedModel:
    """Wrap a model into PEFT's, with LoRA in the backbone and the head as a module that trains whole and is saved.

    Every new parameter belongs to the block of the module that it sits in.

    Parameters
    ----------
    module
        The bare model.
    blocks
        Its blocks; the last one is the head.
    lora
        Options in PEFT's words.
    seed
        Seed of the new matrices.
    base
        The base model's folder, for adapter_config.json.

    Raises
    ------
    JobError
        InvalidModel: a name that matches no module that LoRA can change, with those that exist.
    """
    from peft import LoraConfig, get_peft_model

    head = frozenset(blocks[-1].parameters)
    text = hasattr(module, "config")
    config = LoraConfig(
        task_type="SEQ_CLS" if text else None,
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=_targets(module, head, lora.target_modules),
        modules_to_save=_whole_modules(module, head),
        base_model_name_or_path=base if text else None,  # PEFT takes a transformers model's own, and warns of others
    )
    owners = {name.rpartition(".")[0]: block.name for block in blocks for name in block.parameters}
    exact = {name: block.name for block in blocks for name in block.parameters}
    with seeded(seed):
        wrapped = get_peft_model(module, config)
    if not text:
        wrapped.peft_config["default"].base_model_name_or_path = base
    members: dict[str, list[str]] = {block.name: [] for block in blocks}
    adapter = []
    for name, parameter in wrapped.named_parameters():
        block = _block_of(name.removeprefix(_PREFIX), owners, exact)
        members[block].append(name)
        if parameter.requires_grad:
            adapter.append(name)
            if block != HEAD and ".lora_" not in name:
                raise JobError("InvalidModel", f"PEFT would train {name} whole, which is not of the head")
    return LoadedModel(
        wrapped,
        [Block(name, tuple(parameters)) for name, parameters in members.items()],
        frozenset(adapter),
    )


def _block_of(name: str, owners: dict[str, str], exact: dict[str, str]) -> str:
    """Return the block of a parameter: that of the nearest module around it which had parameters before."""
    if name in exact:
        return exact[name]
    path = name.rpartition(".")[0]
    while path not in owners:
        path = path.rpartition(".")[0]
    return owners[path]


def _targets(module: nn.Module, head: Collection[str], wanted: Sequence[str]) -> list[str]:
    """Return the full names of the backbone's modules that are meant."""
    possible = {
        name: part for name, part in module.named_modules() if _takes_lora(part) and f"{name}.weight" not in head
    }
    linear = [name for name, part in possible.items() if not isinstance(part, nn.Conv2d | nn.Embedding)]
    found: dict[str, None] = {}
    for target in wanted:
        matches = [name for name in possible if name == target or name.endswith(f".{target}")]
        if target == ALL_LINEAR:
            matches = linear
        if not matches:
            names = sorted({name.rpartition(".")[2] for name in possible})
            raise JobError(
                "InvalidModel",
                f"spec.adapter.lora.targetModules: {target!r} matches no module of the backbone that LoRA can change;"
                f" there are {', '.join(names[:40]) or 'none'}",
            )
        found |= dict.fromkeys(matches)
    return list(found)


def _takes_lora(part: nn.Module) -> bool:
    if isinstance(part, nn.Conv2d):
        return part.groups == 1  # depthwise filters have no two factors to split into
    return isinstance(part, nn.Linear | nn.Embedding) or type(part).__name__ == "Conv1D"  # GPT-2's linear layer


def _whole_modules(module: nn.Module, head: Collection[str]) -> list[str]:
    """Return the topmost modules whose parameters are all of the head."""
    found: list[str] = []
    for path, part in module.named_modules():
        names = [f"{path}.{name}" for name, _ in part.named_parameters()]
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if path and names and not inside and all(name in head for name in names):
            found.append(path)
    return found


def merged(wrapped: Any) -> nn.Module:
    """Return a copy of the base model with the adapter folded in; the wrapped model stays as it is."""
    return copy.deepcopy(wrapped).merge_and_unload()
