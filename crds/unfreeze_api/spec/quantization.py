"""A quantised base: fewer bits for each frozen weight."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from unfreeze_api.adapters import ADAPTERS
from unfreeze_api.grammar.model import Model, Rule
from unfreeze_api.grammar.words import either, every
from unfreeze_api.spec.distribution import ENGINES
from unfreeze_api.tasks import TASKS


class QuantizationSpec(Model):
    """How the linear layers below the head are held, by bitsandbytes; they stay frozen."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!self.doubleQuantization || self.type != 'Int8'",
            "Int8 has one factor for each row, of which nothing is left to quantise: set doubleQuantization to false, or"
            " type to NF4",
            ".doubleQuantization",
        ),
    )

    type: Literal["Int8", "NF4", "FP4"]
    """Int8: 8 bits a weight, inputs too (LLM.int8(), Dettmers et al. 2022, arXiv 2208.07339). NF4: 4 bits at the quantiles of
    a normal distribution (QLoRA, Dettmers et al. 2023, arXiv 2305.14314). FP4: 4 bits as a floating-point number."""
    double_quantization: bool = Field(default=False)
    """Whether the 4-bit types quantise their factors too, which saves another 0.4 bits a weight."""


_READERS = [task.name for task in TASKS if task.reads_text]
_REPLICATING = [engine for engine in ENGINES if engine.replicates]
_READING = [kind for kind in ADAPTERS if kind.reads_base]
_QUANTIZED = "!has(self.model.quantization) || "

QUANTIZATION_RULES = (
    Rule(
        _QUANTIZED + "(has(self.adapter) ? self.adapter.baseWeights == 'Frozen'"
        " : self.strategy.type == 'FeatureExtraction')",
        "no step can change quantised weights: add spec.adapter with baseWeights Frozen, choose strategy.type"
        " FeatureExtraction, or remove model.quantization",
        ".model.quantization",
    ),
    Rule(
        _QUANTIZED + f"self.task.type in {_READERS}",
        "only transformers models of texts can be quantised: remove model.quantization, or choose task.type"
        f" {' or '.join(_READERS)}",
        ".model.quantization",
    ),
    Rule(
        _QUANTIZED + f"self.distribution.engine in {[engine.name for engine in _REPLICATING]}",
        f"{every([engine for engine in ENGINES if not engine.replicates])} divide or convert weights, and quantised ones"
        f" cannot be: choose distribution.engine {either(_REPLICATING)}, or remove model.quantization",
        ".model.quantization",
    ),
    Rule(
        _QUANTIZED + "self.model.initialization == 'Pretrained'",
        "random weights are not worth quantising: set model.initialization to Pretrained, or remove model.quantization",
        ".model.quantization",
    ),
    Rule(
        f"!has(self.adapter) || {_QUANTIZED}!(self.adapter.type in {[kind.name for kind in _READING]})",
        f"{every(_READING)} {_READING[0].reads_base}, and model.quantization rounds them: choose adapter.type"
        f" {either([kind for kind in ADAPTERS if not kind.reads_base])}, or remove model.quantization",
        ".model.quantization",
    ),
    Rule(
        f"!has(self.adapter) || !has(self.adapter.lora) || {_QUANTIZED}"
        "self.adapter.lora.initLoraWeights in ['Default', 'Gaussian', 'LoftQ']",
        "Orthogonal, PiSSA and OLoRA start from weights that are not quantised: set adapter.lora.initLoraWeights to Default,"
        " Gaussian or LoftQ, or remove model.quantization",
        ".model.quantization",
    ),
    Rule(
        "!has(self.adapter) || !has(self.adapter.lora) || has(self.model.quantization)"
        " || self.adapter.lora.initLoraWeights != 'LoftQ'",
        "LoftQ makes up for what quantising takes from the base: add model.quantization, or set initLoraWeights to Default",
        ".adapter.lora.initLoraWeights",
    ),
    Rule(
        f"!has(self.adapter) || !has(self.adapter.lora) || {_QUANTIZED}self.model.quantization.type != 'Int8'"
        " || !self.adapter.lora.useDora",
        "DoRA measures the base's weights, which PEFT cannot do with Int8: set quantization.type to NF4, or"
        " adapter.lora.useDora to false",
        ".model.quantization",
    ),
    Rule(
        _QUANTIZED + "!self.training.compile",
        "bitsandbytes' layers are not compiled: set training.compile to false, or remove model.quantization",
        ".model.quantization",
    ),
)
