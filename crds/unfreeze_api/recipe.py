"""How the model learns: strategy, learning rates, adapter, and the course of the training."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from unfreeze_api.model import Model, Rule


class PartialFineTuningSpec(Model):
    """Options of PartialFineTuning."""

    last_blocks: int = Field(ge=1, le=1024)
    """How many blocks below the head are trained."""


class LinearProbeThenFineTuneSpec(Model):
    """Options of LinearProbeThenFineTune."""

    probe_epochs: float = Field(default=1, gt=0, le=10000)
    """Epochs of training.epochs in which the head alone is trained, before everything is."""


class GradualUnfreezingSpec(Model):
    """Options of GradualUnfreezing."""

    blocks_per_phase: int = Field(default=1, ge=1, le=1024)
    """How many more blocks, from the top, each phase unfreezes."""
    epochs_per_phase: float = Field(default=1, gt=0, le=10000)
    """Epochs of each phase, fractions allowed; the last phase takes what is left of training.epochs."""


class LearningRateSpec(Model):
    """Learning rates of head and backbone, and their course."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.backbone) || self.backbone <= self.head",
            "backbone must not be above head: pretrained layers take smaller steps than the new head",
            ".backbone",
        ),
    )

    head: float = Field(default=1e-3, gt=0, le=10)
    """Peak learning rate of the new head (and of LoRA's matrices unless backbone is given)."""
    backbone: float | None = Field(default=None, gt=0, le=10)
    """Peak learning rate of the pretrained block next to the head. Default: head / 10, in the range of 10 to 100 times
    below the head that transfer learning uses; with an adapter: head."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor from each block to the next one below: 0.8 gives the embeddings of a deep model far smaller steps than
    its top."""
    schedule: Literal["Constant", "Linear", "Cosine"] = "Cosine"
    """Course of the learning rate over the whole job after the warm-up: kept, or down to 0."""
    warmup_ratio: float = Field(default=0.06, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0."""


def _member(name: str) -> Rule:
    field = name[0].lower() + name[1:]
    return Rule(
        f"!has(self.{field}) || self.type == '{name}'", f"{field} is only allowed when type is {name}", f".{field}"
    )


class StrategySpec(Model):
    """How much of the model may change, and when."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _member("PartialFineTuning"),
        _member("LinearProbeThenFineTune"),
        _member("GradualUnfreezing"),
        Rule(
            "self.type != 'PartialFineTuning' || has(self.partialFineTuning)",
            "type PartialFineTuning needs partialFineTuning.lastBlocks",
        ),
        Rule(
            "self.type != 'FeatureExtraction' || !has(self.learningRate) || !has(self.learningRate.backbone)",
            "FeatureExtraction keeps the backbone frozen: remove learningRate.backbone, or choose another type",
            ".learningRate",
        ),
    )

    type: Literal[
        "FeatureExtraction", "PartialFineTuning", "FullFineTuning", "LinearProbeThenFineTune", "GradualUnfreezing"
    ]
    """FeatureExtraction trains the new head alone; PartialFineTuning head and last blocks; FullFineTuning everything;
    LinearProbeThenFineTune the head first, then everything; GradualUnfreezing the head, then block after block from
    the top."""
    partial_fine_tuning: PartialFineTuningSpec | None = None
    """Options of PartialFineTuning."""
    linear_probe_then_fine_tune: LinearProbeThenFineTuneSpec | None = None
    """Options of LinearProbeThenFineTune."""
    gradual_unfreezing: GradualUnfreezingSpec | None = None
    """Options of GradualUnfreezing."""
    learning_rate: LearningRateSpec = LearningRateSpec()
    """Learning rates of head and backbone."""


class LoraSpec(Model):
    """LoRA, in PEFT's words (Hu et al. 2021, arXiv 2106.09685)."""

    r: int = Field(default=16, ge=1, le=1024)
    """Rank of the update."""
    lora_alpha: int = Field(default=32, ge=1, le=4096)
    """Scale: the update is multiplied by loraAlpha / r."""
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)
    """Dropout before the update, in training."""
    target_modules: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(
        default=["all-linear"], min_length=1, max_length=64, json_schema_extra={"x-kubernetes-list-type": "set"}
    )
    """Names of the modules that get an update, or all-linear for every linear layer of the backbone."""


class AdapterSpec(Model):
    """Small new weights inside the backbone; its own weights stay as they are. Composes with strategy: within the
    blocks that a phase trains, the adapter's weights train in place of the block's own.
    """

    type: Literal["LoRA"]
    """Kind of adapter."""
    lora: LoraSpec = LoraSpec()
    """Options of LoRA."""


class EvaluateSpec(Model):
    """When the validation data is evaluated; always at the end of a phase."""

    every_steps: int | None = Field(default=None, ge=1, le=1000000000)
    """Optimizer steps from one evaluation to the next. Default: at the end of each epoch."""


class CheckpointSpec(Model):
    """When checkpoints are written; always at the end of a phase and when the pod is asked to stop."""

    every_steps: int = Field(default=500, ge=1, le=1000000000)
    """Optimizer steps from one checkpoint to the next."""
    keep: int = Field(default=2, ge=1, le=1000)
    """How many of the newest checkpoints are kept, beside the best one."""


class EarlyStoppingSpec(Model):
    """Ends a phase that no longer improves, in the last phase the training."""

    patience: int = Field(default=3, ge=1, le=1000)
    """Evaluations without improvement after which the phase ends."""
    min_delta: float = Field(default=0.0, ge=0, le=100)
    """By how much the metric must improve to count."""


class TrainingSpec(Model):
    """The course of the training."""

    epochs: float = Field(default=3, gt=0, le=10000)
    """Passes over the training data, of all phases together; fractions allowed."""
    batch_size: int = Field(default=32, ge=1, le=1048576)
    """Samples per optimizer step over all workers together, so that the recipe does not change with numNodes."""
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=65536)
    """Micro batches that a worker's share of the batch is split into, to save memory."""
    precision: Literal["Auto", "Float32", "BFloat16"] = "Auto"
    """Type of the computation. Auto: BFloat16 on accelerators that support it, else Float32."""
    optimizer: Literal["AdamW", "SGD"] = "AdamW"
    """Optimizer; SGD has momentum 0.9."""
    weight_decay: float = Field(default=0.01, ge=0, le=10)
    """Decoupled weight decay; biases and norms are left alone."""
    max_grad_norm: float = Field(default=1.0, ge=0, le=1000000)
    """Norm that gradients are clipped to; 0 does not clip."""
    seed: int = Field(default=0, ge=0, le=4294967295)
    """Seed of everything random: splits, order, new weights, dropout."""
    metric: Literal["accuracy", "macroF1", "balancedAccuracy", "loss"] = "accuracy"
    """Validation metric that chooses the best checkpoint and drives early stopping."""
    evaluate: EvaluateSpec = EvaluateSpec()
    """When the validation data is evaluated."""
    checkpoint: CheckpointSpec = CheckpointSpec()
    """When checkpoints are written."""
    early_stopping: EarlyStoppingSpec | None = None
    """Ends phases that no longer improve. Default: every phase runs to its end."""
