"""Which jobs keep frozen weights in the type of their file, and what is said of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unfreeze_api.adapters.bottleneck import BottleneckSpec
from unfreeze_api.adapters.ia3 import Ia3Spec
from unfreeze_api.adapters.lora import LoraSpec
from unfreeze_api.spec.adapter import PROMPTS
from unfreeze_api.tasks import task_type
from unfreeze_trainer.models.own_type import HALVES, file_types, half_of, hold, layers, widen

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import nn

    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_api.spec.adapter import AdapterSpec
    from unfreeze_trainer.models import LoadedModel

_PLAIN_STARTS = ("Default", "Gaussian", "Orthogonal")
"""Of LoRA: those that neither read nor move the base's weights."""


def why_float32(job: ResolvedJob) -> str | None:
    """Return why a job has all weights in float32, whatever its base's files hold; None where it can keep their type."""
    told = (
        (job.model.frozen_dtype == "Float32", "spec.model.dtype says Float32"),
        (job.model.initialization == "Random", "all weights are new"),
        (job.model.quantization is not None, "spec.model.quantization says how they are held"),
        (not task_type(job.task.type).reads_text, "only models that read text keep the type of their files"),
        (job.training.compile, "what spec.training.compile compiles is in float32"),
        (not _leaves_base_alone(job.adapter), "the adapter computes with the base's weights itself"),
    )
    return next((why for applies, why in told if applies), None)


def _leaves_base_alone(adapter: AdapterSpec | None) -> bool:
    """Tell whether an adapter stands beside its layers: what reads or moves their weights would have to make them whole."""
    if adapter is None:
        return True
    if lora := adapter.of(LoraSpec):
        return lora.init_lora_weights in _PLAIN_STARTS and not lora.use_dora
    return adapter.type in PROMPTS or any(adapter.of(kind) for kind in (BottleneckSpec, Ia3Spec))


def widen_first(job: ResolvedJob, module: nn.Module, trained: Collection[str], *, divides: bool) -> None:
    """Make float32 of all that any phase trains, before the first one, where it cannot be done at the phase that it begins in.

    Shares keep the type that they were divided in. Guards and the rungs of Auto go back to copies of what they began with.
    """
    if divides or job.guard or job.strategy.type == "Auto":
        widen(module, trained)


def pretend(job: ResolvedJob, loaded: LoadedModel) -> None:
    """Give a skeleton the types that its weights will have when they are read from their files."""
    if why_float32(job) is not None or not (half := half_of(file_types(job.model.weights_path))):
        return
    own = {*loaded.adapter_parameters, *loaded.blocks[-1].parameters}
    for layer in layers(loaded.module, own):
        weight = dict(layer.named_parameters(recurse=False))["weight"]
        weight.data = weight.data.to(half)
    hold(loaded.module, own)


def say_types(job: ResolvedJob, loaded: LoadedModel) -> str | None:
    """Return a sentence on the types of a model's weights where its files hold half precision; None elsewhere."""
    if job.model.initialization == "Random" or not (half := half_of(file_types(job.model.weights_path))):
        return None
    word = str(half).removeprefix("torch.")
    kept = [parameter for parameter in loaded.module.parameters() if parameter.dtype in HALVES.values()]
    if kept:
        size = sum(parameter.nbytes for parameter in kept) / 2**20
        return f"{size:,.0f} MiB of weights stay in {word}, as in their files, until they train: they count as float32 of the same bits"
    return (
        f"all weights are float32, though the files hold {word}: {why_float32(job) or 'the model has no plain layers'}"
    )
