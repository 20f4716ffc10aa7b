"""Adapters of experts, whose stacked weights PEFT's LoRA takes as parameters; what else there is of adapters does not reach them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn

from unfreeze_api.adapters.lora import LoraSpec
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.adapters.targets import ALL_LINEAR, find_targets
from unfreeze_trainer.models.experts import experts, share

_RENAMED = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
"""Names that experts' layers had before they were stacked: of whatever is still called so in a mixture of experts, of its shared
experts and its dense layers, PEFT takes the name for the experts'. As parameters they are taken for what they are."""
_PLAIN_INIT = ("Default", "Gaussian")
_FIELD = "spec.adapter.lora"


def lora_targets(module: nn.Module, head: Collection[str], lora: LoraSpec) -> dict[str, list[str]]:
    """Return PEFT's `target_modules`, and `target_parameters` in a mixture of experts, by full names.

    Raises
    ------
    JobError
        InvalidAdapter: a name that matches nothing, or an option that parameters cannot have.
    """
    field, stacked = f"{_FIELD}.targetModules", experts(module)
    if not stacked:
        return {"target_modules": find_targets(module, head, lora.target_modules, field)}
    meant = {
        target: [name for name in stacked if target in (ALL_LINEAR, name) or name.endswith(f".{target}")]
        for target in lora.target_modules
    }
    of_layers = [target for target in lora.target_modules if target == ALL_LINEAR or not meant[target]]
    layers = find_targets(module, head, of_layers, field)
    parameters = [name for names in meant.values() for name in names]
    parameters += [f"{name}.weight" for name in layers if name.rpartition(".")[2] in _RENAMED]
    if not parameters:
        return {"target_modules": layers}
    _require_plain(module, head, lora)
    return {
        "target_modules": [name for name in layers if f"{name}.weight" not in parameters],
        "target_parameters": list(dict.fromkeys(parameters)),
    }


def _require_plain(module: nn.Module, head: Collection[str], lora: LoraSpec) -> None:
    """Refuse what PEFT's LoRA of a parameter does not have."""
    wrong = None
    if lora.lora_dropout:
        wrong = f"loraDropout {lora.lora_dropout:g}", "set loraDropout to 0"
    elif lora.use_dora:
        wrong = "useDora", "set useDora to false"
    elif lora.init_lora_weights not in _PLAIN_INIT:
        wrong = f"initLoraWeights {lora.init_lora_weights}", f"set initLoraWeights to {' or '.join(_PLAIN_INIT)}"
    if wrong is None:
        return
    what, way_out = wrong
    layers = ", ".join(sorted({name.rpartition(".")[2] for name in _layers(module, head)})[:8])
    raise JobError(
        "InvalidAdapter",
        f"{_FIELD}.{what}: {share(module, head):.0%} of the weights below the head are experts', which PEFT adapts as parameters,"
        f" without dropout, DoRA and other starts than a random one: {way_out}, or name in targetModules what of the rest is to get"
        f" an update ({layers})",
    )


def _layers(module: nn.Module, head: Collection[str]) -> list[str]:
    found = find_targets(module, head, [ALL_LINEAR], _FIELD)
    return [name for name in found if name.rpartition(".")[2] not in _RENAMED]


def require_reach(module: nn.Module, head: Collection[str], wanted: Sequence[str], kind: str, field: str) -> None:
    """Refuse all-linear in a mixture of experts for an adapter that reaches layers alone.

    Parameters
    ----------
    module, head
        The bare model, and its head's parameters.
    wanted
        Names of modules, or all-linear.
    kind, field
        The adapter's, and where its modules are named.

    Raises
    ------
    JobError
        InvalidAdapter, with the share of the weights that would have no adapter.
    """
    if ALL_LINEAR not in wanted or not experts(module):
        return
    layers = ", ".join(sorted({name.rpartition(".")[2] for name in _layers(module, head)})[:8])
    raise JobError(
        "InvalidAdapter",
        f"{field}: {kind} reaches no experts, and {share(module, head):.0%} of the weights below the head are theirs: choose"
        f" adapter.type LoRA with loraDropout 0, which does, or name here what of the rest is to be adapted ({layers})",
    )
