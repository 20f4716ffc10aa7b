"""Text models whose linear layers below the head are quantised by bitsandbytes."""

from __future__ import annotations

import copy
import importlib.util
import logging
import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from unfreeze_api.spec.quantization import QuantizationSpec
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.adapters.targets import is_conv1d, whole_modules
from unfreeze_trainer.models.plain import compute_in_float32

TYPES = ("Int8", "NF4", "FP4")
_FIELD = "spec.model.quantization"


def config_options(spec: QuantizationSpec, kept: Collection[str]) -> dict[str, Any]:
    """Return the arguments of transformers' BitsAndBytesConfig; modules in `kept` keep float32."""
    skipped = {"llm_int8_skip_modules": list(kept)}
    if spec.type == "Int8":
        return {"load_in_8bit": True} | skipped
    four = {"bnb_4bit_quant_type": spec.type.lower(), "bnb_4bit_use_double_quant": spec.double_quantization}
    return {"load_in_4bit": True} | four | skipped


def load_quantized(
    module: nn.Module,
    head: Collection[str],
    path: str,
    where: str,
    spec: QuantizationSpec,
    *,
    kept: Collection[str] = (),
) -> nn.Module:
    """Load a model once more, quantised, and give it the head of the first.

    Parameters
    ----------
    module, head
        As load_text_model returned them.
    path, where
        As it took them.
    spec
        How.
    kept
        Modules that keep float32 beside the head's.

    Returns
    -------
    nn.Module
        On the CPU, in training mode, float32 but for its quantised weights.

    Raises
    ------
    JobError
        QuantizationMissing: bitsandbytes is not installed. QuantizationNotSupported: it cannot do this on this worker's
        device. InvalidModel: transformers cannot load it so.
    """
    check_quantization(spec)
    from transformers import BitsAndBytesConfig

    loader: Any = type(module)
    try:
        quantized = loader.from_pretrained(
            path,
            config=copy.deepcopy(module.config),
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            quantization_config=BitsAndBytesConfig(**config_options(spec, [*whole_modules(module, head), *kept])),
            device_map={"": "cpu"},
        )
    except Exception as error:  # a model's code may not bear it, in many ways
        message = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise JobError("InvalidModel", f"{where}: the model cannot be loaded with {_FIELD}: {message}") from error
    quantized.__dict__.pop("hf_device_map", None)  # engines move it, and Accelerate would compare it with their device
    places = dict(quantized.named_parameters())
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in head:
                places[name].copy_(parameter)
    compute_in_float32(quantized)
    return quantized.train()


def check_quantization(spec: QuantizationSpec) -> None:
    """Try a type on this worker's device, on one small layer.

    Raises
    ------
    JobError
        As of load_quantized.
    """
    if not importlib.util.find_spec("bitsandbytes"):
        raise JobError(
            "QuantizationMissing",
            f"{_FIELD}: bitsandbytes is not installed in this image: pip install '.[quantization]', or use an image"
            " that has it",
        )
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of every cast that it makes
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        _try(spec.type, device)
    except Exception as error:  # a missing kernel shows in many ways
        message = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        choices = [f"choose {kind}" for kind in TYPES if kind != spec.type and _works(kind, device)]
        way_out = ", or ".join([*choices, "remove quantization"])
        raise JobError(
            "QuantizationNotSupported",
            f"{_FIELD}.type {spec.type}: bitsandbytes cannot compute with it on this worker's {device.type} ({message}):"
            f" {way_out}",
        ) from error


def _works(kind: str, device: torch.device) -> bool:
    try:
        _try(kind, device)
    except Exception:  # noqa: BLE001 - as above
        return False
    return True


def _try(kind: str, device: torch.device) -> None:
    """Compute with a quantised layer, and its gradient."""
    import bitsandbytes

    layer: Any
    if kind == "Int8":
        layer = bitsandbytes.nn.Linear8bitLt(64, 64, has_fp16_weights=False)
    else:
        layer = bitsandbytes.nn.Linear4bit(64, 64, quant_type=kind.lower(), compute_dtype=torch.float32)
    layer = layer.to(device)
    compute_in_float32(layer)
    with torch.inference_mode(False), torch.enable_grad():  # whoever only asks a model loads it without gradients
        inputs = torch.ones(2, 64, device=device, requires_grad=True)
        layer(inputs).sum().backward()


@torch.no_grad()
def in_float32(quantized: nn.Module, plain: nn.Module) -> nn.Module:
    """Give an unquantised model the weights that a quantised one computes with; return it.

    Both have the same adapter, and parameters of the same names.
    """
    sources, layers, places = (
        dict(pairs) for pairs in (quantized.named_parameters(), quantized.named_modules(), plain.named_modules())
    )
    for name, parameter in plain.named_parameters():
        value: Tensor = sources[name]
        path = name.rpartition(".")[0]
        if not value.is_floating_point():
            value = _whole_weights(layers[path])
            value = value.T if is_conv1d(places[path]) else value
        parameter.copy_(value)
    buffers = dict(quantized.named_buffers())
    for name, buffer in plain.named_buffers():
        buffer.copy_(buffers[name])
    return plain


@torch.no_grad()
def start_from_rounding(wrapped: Any, plain: nn.Module) -> None:
    """Start each LoRA from what quantising took from its layer's weights, as far as its rank goes.

    B A times its scale is the nearest matrix of that rank to the difference, by its singular values: LoftQ (Li et al. 2023,
    arXiv 2310.08659) in one iteration, since the base is quantised already. PEFT's function for it computes on CUDA alone.

    Parameters
    ----------
    wrapped
        PEFT's model around the quantised one.
    plain
        The model as it was, with the same names.
    """
    from peft.tuners.lora import LoraLayer

    for name, part in wrapped.base_model.model.named_modules():
        if not isinstance(part, LoraLayer) or (base := part.get_base_layer()).weight.is_floating_point():
            continue
        layer: Any = plain.get_submodule(name)
        whole = layer.weight.T if is_conv1d(layer) else layer.weight
        left, values, right = torch.linalg.svd(whole - _whole_weights(base), full_matrices=False)
        rank = min(part.r["default"], len(values))
        root = (values[:rank] / part.scaling["default"]).sqrt()
        part.lora_A["default"].weight[:rank] = root[:, None] * right[:rank]
        part.lora_B["default"].weight[:, :rank] = left[:, :rank] * root


def _whole_weights(layer: Any) -> Tensor:
    """Return what a quantised layer's weights stand for, float32 of (outputs, inputs).

    PEFT's function of this purpose leaves an 8-bit layer behind that no longer computes.
    """
    from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant

    weight = layer.weight
    if weight.dtype is torch.int8:
        factors = weight.SCB if layer.state.SCB is None else layer.state.SCB  # there since the first forward pass
        return int8_vectorwise_dequant(weight.data, factors)
    return dequantize_4bit(weight.data, weight.quant_state)


def elements(parameter: Tensor) -> int:
    """Return how many weights a parameter stands for: two of 4 bits share a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)
