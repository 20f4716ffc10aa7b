"""PEFT's adapters, for transformers and timm models alike."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import re
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unfreeze_api.adapters.adalora import AdaLoraSpec
from unfreeze_api.adapters.ia3 import Ia3Spec
from unfreeze_api.adapters.lora import LoraSpec
from unfreeze_api.adapters.peft import PeftSpec
from unfreeze_api.adapters.prompt_tuning import PromptTuningSpec
from unfreeze_api.spec.adapter import PROMPTS, AdapterSpec
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.adapters.adalora import RankAllocation, ranks_kept
from unfreeze_trainer.models.adapters.stacked import lora_targets, require_reach
from unfreeze_trainer.models.adapters.targets import ALL_LINEAR, find_targets, narrows, require_foldable, whole_modules
from unfreeze_trainer.models.blocks import HEAD, Block
from unfreeze_trainer.models.hook import StepHook
from unfreeze_trainer.models.loading import seeded
from unfreeze_trainer.models.tied import tied_layers

METHODS = {
    "LoRA": "LORA",
    "AdaLoRA": "ADALORA",
    "IA3": "IA3",
    "PromptTuning": "PROMPT_TUNING",
    "PrefixTuning": "PREFIX_TUNING",
    "PTuning": "P_TUNING",
}
"""PEFT's name of each type that has a member of its own."""
_WORDS: dict[str, dict[str, Any]] = {
    "init_lora_weights": {
        "Default": True,
        "Gaussian": "gaussian",
        "Orthogonal": "orthogonal",
        "PiSSA": "pissa",
        "OLoRA": "olora",
        "LoftQ": True,  # PEFT's own needs CUDA: see start_from_rounding
    },
    "prompt_tuning_init": {"SampleVocab": "SAMPLE_VOCAB", "Random": "RANDOM", "Text": "TEXT"},
}
"""PEFT's values for our words."""
_OURS = frozenset({"loraplus_lr_ratio"})
"""Fields that are none of PEFT's configuration."""
_SET_HERE = frozenset(
    {"auto_mapping", "base_model_name_or_path", "inference_mode", "modules_to_save", "peft_type", "peft_version"}
    | {"revision", "task_type"}
)
"""Fields of PEFT's configuration that follow from the job."""
_NO_TEXT = frozenset({"input_values", "input_features", "pixel_values"})
"""Inputs of models that PEFT's classes for tasks, which name those of texts, cannot call."""
_CHANGES_BASE = ("PiSSA", "OLoRA")
_OF_LINEAR = (*_CHANGES_BASE, "Orthogonal")
"""What LoRA starts from in linear layers alone."""
_OF_MAMBA = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})
_REFUSED_THERE = "LORA", "ADALORA", "RANDLORA"
_KERNELS_OWN = (".out_proj", ".dt_proj")
"""Layers of Mamba whose weights its kernels take: PEFT refuses some methods in the first, and the second is never called."""
_WEIGHTS = "adapter_model.safetensors"


def add_peft(
    module: nn.Module,
    blocks: Sequence[Block],
    adapter: AdapterSpec,
    *,
    seed: int,
    base: str,
    reach_experts: bool = True,
    whole_heads: bool = True,
) -> LoadedModel:
    """Wrap a model into PEFT's, with an adapter in the backbone and the head as a module that trains whole and is saved.

    Every new parameter belongs to the block of the module that it sits in; what sits in none (prompts, vectors that all
    layers share) to the block below the head, which strategies open first. Parameters as of add_adapter.

    Raises
    ------
    JobError
        InvalidAdapter: a name that matches no module, an option that PEFT does not have, or whatever PEFT refuses.
    """
    from peft import get_peft_model

    head = frozenset(blocks[-1].parameters)
    text = hasattr(module, "config") and getattr(module, "main_input_name", None) not in _NO_TEXT
    options = _options(module, head, adapter, reach_experts=reach_experts)
    if _leaves_out_kernels(module, adapter):
        options["target_modules"] = [name for name in options["target_modules"] if not name.endswith(_KERNELS_OWN)]
    if targets := options.get("target_modules"):
        member, other = f"spec.adapter.{adapter.kind.member}", adapter.of(PeftSpec)
        field = f"{member}.config.target_modules" if other else f"{member}.targetModules"
        require_foldable(module, targets, other.method if other else adapter.type, field)
        if (lora := adapter.of(LoraSpec)) and lora.init_lora_weights in _OF_LINEAR:
            _require_linear(module, targets, lora.init_lora_weights, field)
    whole = whole_modules(module, head) or None
    options |= {"task_type": _task_type(module, head) if text else None, "modules_to_save": whole}
    prompt = adapter.of(PromptTuningSpec)
    if prompt and prompt.prompt_tuning_init == "Text":
        options["tokenizer_name_or_path"] = base
    if adapter.type in ("PromptTuning", "PTuning") and (width := _embedding_width(module)):
        options["token_dim"] = width  # PEFT takes the width of the layers, which ALBERT's embeddings do not have
    if text and adapter.type == "PrefixTuning":
        _require_prefix(module)
    if text:  # PEFT takes a transformers model's own, and warns of others
        options["base_model_name_or_path"] = base
    before = {name: block.name for block in blocks for name in block.parameters}
    try:
        with seeded(seed):
            wrapped: Any = get_peft_model(module, _config_class(adapter)(**options))
    except Exception as error:  # PEFT's errors are of many kinds, and none of them goes away on a retry
        message = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise JobError("InvalidAdapter", f"spec.adapter {adapter.type}: PEFT refuses it: {message}") from error
    if not text:
        wrapped.peft_config["default"].base_model_name_or_path = base
    _leave_casts_to_autocast(wrapped)
    return _divided(wrapped, before, list(blocks), adapter, whole if whole and whole_heads else ())


def _leaves_out_kernels(module: nn.Module, adapter: AdapterSpec) -> bool:
    """Return whether all-linear would bring PEFT to refuse a model of Mamba's kind."""
    member, other = adapter.options, adapter.of(PeftSpec)
    wanted = other.config.get("target_modules", [ALL_LINEAR]) if other else getattr(member, "target_modules", None)
    kind = getattr(getattr(module, "config", None), "model_type", None)
    return kind in _OF_MAMBA and _method(adapter) in _REFUSED_THERE and wanted == [ALL_LINEAR]


def _require_linear(module: nn.Module, targets: Collection[str], start: str, field: str) -> None:
    """Raise JobError for the first target that is a convolution or an embedding."""
    for name in targets:
        if isinstance(part := module.get_submodule(name), nn.Conv2d | nn.Embedding):
            kind = "a convolution" if isinstance(part, nn.Conv2d) else "an embedding"
            raise JobError(
                "InvalidAdapter",
                f"{field}: {name} is {kind}, and what initLoraWeights {start} starts from PEFT finds in linear layers alone: set"
                " that to Default or Gaussian, or name linear layers",
            )


def _require_prefix(module: Any) -> None:
    """Raise JobError InvalidAdapter where a model's body takes no keys and values from before a text."""
    body = getattr(module, "base_model", module)
    if "past_key_values" not in inspect.signature(body.forward).parameters:
        raise JobError(
            "InvalidAdapter",
            f"spec.adapter PrefixTuning: {type(body).__name__} takes no keys and values from before a text: choose LoRA or another type",
        )


def _embedding_width(module: Any) -> int | None:
    """Return how wide a model's embeddings of tokens are; None in one that has none."""
    try:
        table = module.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return table.embedding_dim if isinstance(table, nn.Embedding) else None


def _leave_casts_to_autocast(wrapped: nn.Module) -> None:
    """Have LoRA's layers take their input as it is where autocast gives both factors of the product its type anyway.

    PEFT makes a float32 copy of each layer's input first, of which autocast makes another one in its own type: the bits that were
    there before, but for the rounding of dropout's factor where there is dropout. Both lie in memory and go through it for each layer and pass. DoRA computes other things with it, in its type.
    """
    from peft.tuners.lora import LoraLayer

    for part in wrapped.modules():
        if isinstance(part, LoraLayer) and not part.lora_variant:
            part._cast_input_dtype = _cast  # noqa: SLF001 - PEFT has a switch for it, which knows nothing of autocast


def _cast(inputs: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    if inputs is None or torch.is_autocast_enabled(inputs.device.type):
        return inputs
    return inputs.to(dtype)


def _task_type(module: nn.Module, head: Collection[str]) -> str:
    """Return what PEFT calls the task of a transformers model."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    )

    if type(module).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return "CAUSAL_LM"
    if type(module).__name__ in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values():
        return "SEQ_2_SEQ_LM"
    if type(module).__name__ in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES.values():
        return "TOKEN_CLS"
    return "SEQ_CLS" if head else "FEATURE_EXTRACTION"


def _divided(
    wrapped: Any, before: dict[str, str], blocks: list[Block], adapter: AdapterSpec, whole: Collection[str]
) -> LoadedModel:
    owners = {name.rpartition(".")[0]: block for name, block in before.items()}
    owners |= dict.fromkeys(whole, HEAD)  # what PEFT wraps of a head may have parameters in its own parts alone
    shared = blocks[-2].name if len(blocks) > 1 else HEAD
    prefix = "base_model." if adapter.type in PROMPTS else "base_model.model."
    members: dict[str, list[str]] = {block.name: [] for block in blocks}
    adapter_parameters = []
    for name, parameter in wrapped.named_parameters():
        bare = name.removeprefix(prefix)
        block = before.get(bare) or _block_around(bare, owners, shared)
        members[block].append(name)
        if parameter.requires_grad:
            adapter_parameters.append(name)
            if block != HEAD and bare in before:
                raise JobError("InvalidAdapter", f"PEFT would train {name} whole, which is not of the head")
    lora = adapter.of(LoraSpec)
    ratio = lora.loraplus_lr_ratio if lora else 1.0
    faster = (name for name in adapter_parameters if ".lora_B." in name or ".lora_embedding_B." in name)
    return LoadedModel(
        wrapped,
        [Block(name, tuple(parameters)) for name, parameters in members.items()],
        frozenset(adapter_parameters),
        dict.fromkeys(faster, ratio) if ratio != 1 else {},
        RankAllocation(wrapped) if adapter.of(AdaLoraSpec) else StepHook(),
    )


def _block_around(name: str, owners: dict[str, str], shared: str) -> str:
    """Return the block of the nearest module around a parameter which had parameters before."""
    path = name.rpartition(".")[0]
    while path and path not in owners:
        path = path.rpartition(".")[0]
    return owners.get(path, shared)


def _config_class(adapter: AdapterSpec) -> Any:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return PEFT_TYPE_TO_CONFIG_MAPPING[_method(adapter)]


def _method(adapter: AdapterSpec) -> str:
    """Return PEFT's name of an adapter's method."""
    other = adapter.of(PeftSpec)
    return other.method if other else METHODS[adapter.type]


def _options(module: nn.Module, head: Collection[str], adapter: AdapterSpec, *, reach_experts: bool) -> dict[str, Any]:
    """Return the fields of PEFT's configuration that the manifest says, module names in full."""
    member = adapter.options
    assert member is not None  # the job is resolved
    if reach_experts and not isinstance(member, LoraSpec):
        _require_reach(module, head, adapter)
    if isinstance(member, PeftSpec):
        return _checked(module, head, member, _config_class(adapter))
    options = {
        name: _WORDS[name][value] if name in _WORDS else value
        for name, value in member.model_dump(exclude_none=True, by_alias=False).items()
        if name not in _OURS
    }
    if isinstance(member, LoraSpec):
        if reach_experts:
            options |= lora_targets(module, head, member)
        else:
            field = "spec.adapter.lora.targetModules"
            options["target_modules"] = find_targets(module, head, member.target_modules, field)
        _check_patterns("rankPattern", member.rank_pattern, options["target_modules"])
        _check_patterns("alphaPattern", member.alpha_pattern, options["target_modules"])
    if isinstance(member, AdaLoraSpec):
        field = "spec.adapter.adaLora.targetModules"
        options["target_modules"] = find_targets(module, head, member.target_modules, field)
        options["total_step"] = member.tinit + member.tfinal + 2  # until a phase begins, which knows its own
    if isinstance(member, Ia3Spec):
        targets = find_targets(module, head, member.target_modules, "spec.adapter.ia3.targetModules")
        options["target_modules"] = targets
        options["feedforward_modules"] = _feedforward(module, head, member, targets)
    return options


def _require_reach(module: nn.Module, head: Collection[str], adapter: AdapterSpec) -> None:
    member, field = adapter.options, f"spec.adapter.{adapter.kind.member}"
    if isinstance(member, PeftSpec):
        wanted = member.config.get("target_modules", [ALL_LINEAR])
        require_reach(module, head, wanted, f"PEFT's {member.method}", f"{field}.config.target_modules")
    elif wanted := getattr(member, "target_modules", None):
        require_reach(module, head, wanted, adapter.type, f"{field}.targetModules")


def _check_patterns(field: str, patterns: Mapping[str, int] | None, targets: Sequence[str]) -> None:
    """Refuse a pattern that matches no module: PEFT would pass over it without a word."""
    for pattern in patterns or ():
        try:
            matches = any(re.match(rf"(.*\.)?({pattern})$", name) for name in targets)  # PEFT's own way
        except re.error as error:
            raise JobError(
                "InvalidAdapter", f"spec.adapter.lora.{field}: {pattern!r} is no pattern: {error}"
            ) from error
        if not matches:
            raise JobError(
                "InvalidAdapter",
                f"spec.adapter.lora.{field}: {pattern!r} matches none of the modules that get an update, which are"
                f" {', '.join(targets[:8])}{' ...' if len(targets) > 8 else ''}",  # noqa: PLR2004
            )


def _feedforward(module: nn.Module, head: Collection[str], ia3: Ia3Spec, targets: list[str]) -> list[str]:
    if ia3.feedforward_modules is None:
        return [name for name in targets if narrows(module.get_submodule(name))]
    field = "spec.adapter.ia3.feedforwardModules"
    found = find_targets(module, head, ia3.feedforward_modules, field)
    if stray := [name for name in found if name not in targets]:
        raise JobError("InvalidAdapter", f"{field}: {stray[0]} is not among targetModules: name it there too")
    return found


def _checked(module: nn.Module, head: Collection[str], spec: PeftSpec, config: Any) -> dict[str, Any]:
    """Return the options of `spec.adapter.peft` after comparing their names with PEFT's own dataclass."""
    valid = sorted({field.name for field in dataclasses.fields(config)} - _SET_HERE)
    field = "spec.adapter.peft.config"
    for name in spec.config:
        if name in _SET_HERE:
            raise JobError("InvalidAdapter", f"{field}.{name}: it follows from the job; remove it")
        if name not in valid:
            raise JobError(
                "InvalidAdapter",
                f"{field}.{name}: PEFT's {config.__name__} has no such option; it has {', '.join(valid)}",
            )
    wanted = spec.config.get("target_modules", [ALL_LINEAR])
    if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
        raise JobError("InvalidAdapter", f"{field}.target_modules: must be a list of names of modules, or [all-linear]")
    return spec.config | {"target_modules": find_targets(module, head, wanted, f"{field}.target_modules")}


def merged(wrapped: Any) -> nn.Module:
    """Return a copy of the base model with the adapter folded in; the wrapped model stays as it is."""
    ties = getattr(getattr(wrapped.get_base_model(), "config", None), "tie_word_embeddings", None)
    module: Any = copy.deepcopy(wrapped).merge_and_unload()
    # PEFT looks at the encoder's embeddings alone, and those of the decoder may be what is tied.
    if ties and tied_layers(module):
        module.config.tie_word_embeddings = ties
    whole: nn.Module = module
    return whole


def save_peft(wrapped: Any, folder: Path, adapter: AdapterSpec, initial: Callable[[], Any]) -> None:
    """Write an adapter, and the head with it, as PEFT loads it onto the untouched base.

    Parameters
    ----------
    wrapped
        The trained model; it is not changed.
    folder
        Where to.
    adapter
        What `wrapped` was made from.
    initial
        Returns the same model as it was before training. PiSSA and OLoRA have moved a part of the base's weights into the
        adapter: it is written as the difference to that, a LoRA of twice the rank.

    Notes
    -----
    Of AdaLoRA what is written is the ranks that are left.
    """
    config = wrapped.peft_config["default"]
    if adapter.of(AdaLoraSpec):
        before, config.rank_pattern = config.rank_pattern, ranks_kept(wrapped)
    # Auto would look the base model up on the hub to compare vocabularies.
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    if adapter.of(AdaLoraSpec):
        config.rank_pattern = before
    lora = adapter.of(LoraSpec)
    if lora is None or lora.init_lora_weights not in _CHANGES_BASE:
        return
    with tempfile.TemporaryDirectory() as scratch:
        initial().save_pretrained(scratch, save_embedding_layers=False)
        _take_off(folder / _WEIGHTS, Path(scratch) / _WEIGHTS)
    file = folder / "adapter_config.json"
    written = json.loads(file.read_text())
    scale = written["lora_alpha"] / (written["r"] ** 0.5 if written["use_rslora"] else written["r"])
    written |= {"r": 2 * written["r"], "lora_alpha": scale * 2 * written["r"], "use_rslora": False}
    file.write_text(json.dumps(written | {"init_lora_weights": True}, indent=2, sort_keys=True))


def _take_off(file: Path, start: Path) -> None:
    """Replace the matrices of a LoRA by those of its difference to another one: B A - B0 A0 = [B | -B0] [A / A0].

    PEFT's own conversion stumbles over a head that is saved with the adapter.
    """
    from safetensors.torch import load_file, save_file

    now, before = load_file(file), load_file(start)
    for name in now:
        if ".lora_A." in name:
            now[name] = torch.cat([now[name], before[name]], dim=0)
        if ".lora_B." in name:
            now[name] = torch.cat([now[name], -before[name]], dim=1)
    save_file(now, file, metadata={"format": "pt"})
