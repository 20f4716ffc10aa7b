"""The course of the training; strategies and adapters have files of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from unfreeze_api.grammar.model import EXECUTION, FirstDefault, Model, Since
from unfreeze_api.tasks import METRICS

if TYPE_CHECKING:
    MetricName = str
else:
    MetricName = Literal[METRICS]


class GenerateSpec(Model):
    """How much a model of texts is asked to say by itself."""

    max_tokens: int | None = Field(default=None, ge=1, le=131072)
    """Tokens that it may say of each sample. Default: 64."""
    rows: int | None = Field(default=None, ge=1, le=100000)
    """Samples of a split that it is asked of, the first ones. Default: 100."""


class EvaluateSpec(Model):
    """When the validation data is evaluated; always at the end of a phase."""

    every_steps: int | None = Field(default=None, ge=1, le=1000000000)
    """Optimizer steps from one evaluation to the next. Default: at the end of each epoch."""
    generate: Annotated[GenerateSpec | None, EXECUTION] = None
    """Have a model of Captioning, CausalLM or Seq2SeqLM, or a decoder of SpeechRecognition, say by itself what it makes of some samples,
    the most probable token each time, at the end of each phase and of the job: exactMatch, rougeL and chrF, of speech wer and cer, stand among the metrics of
    phases and results. An empty object asks for the defaults. Default: the loss alone is measured."""


class CheckpointSpec(Model):
    """When checkpoints are written; always at the end of a phase and when the pod is asked to stop."""

    every_steps: int = Field(default=500, ge=1, le=1000000000)
    """Optimizer steps from one checkpoint to the next."""
    keep: int = Field(default=2, ge=1, le=1000)
    """How many of the newest checkpoints are kept, beside the best one, while the job runs."""
    after_success: Literal["Delete", "KeepBest", "Keep"] | None = None
    """What becomes of them once the model was exported, checked and reported: Delete them all, KeepBest that of the best
    evaluation, Keep them. With moments they are about three times as large as what was trained. A job that fails keeps
    them, and so does a run that was begun before there was a choice. Default: Delete."""


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
    gradient_accumulation_steps: Annotated[int, EXECUTION] = Field(default=1, ge=1, le=65536)
    """Micro batches that a worker's share of the batch is split into, to save memory."""
    group_by_length: Annotated[bool | None, Since(2)] = None
    """Make batches of samples of similar length, so that little is padded: a faster epoch, in another order. Batches are cut
    from 50 at a time that are sorted by length, and come in random order; each sample still comes once in an epoch. Default: false."""
    gradient_checkpointing: Annotated[bool, EXECUTION] = False
    """Forget the activations inside of each layer and compute them again for its gradients (Chen et al. 2016, arXiv
    1604.06174): less memory, up to a third more computation, the same numbers."""
    compile: Annotated[bool, EXECUTION] = False
    """Compile each layer with torch.compile: faster steps after a start of some minutes, once for each kind of phase. Not
    with DeepSpeed's zeroStage 3; needs a C++ compiler in the image."""
    precision: Literal["Auto", "Float32", "BFloat16", "Float16"] = "Auto"
    """Type of the computation; weights and moments are float32. Auto: BFloat16 on accelerators that support it, else
    Float32. Float16 scales the loss, and needs an accelerator."""
    optimizer: Literal["AdamW", "SGD"] = "AdamW"
    """Optimizer; SGD has momentum 0.9."""
    weight_decay: float = Field(default=0.01, ge=0, le=10)
    """Decoupled weight decay; biases and norms are left alone, embeddings are not."""
    max_grad_norm: float = Field(default=1.0, ge=0, le=1000000)
    """Norm that gradients are clipped to; 0 does not clip."""
    seed: int = Field(default=0, ge=0, le=4294967295)
    """Seed of everything random: splits, order, new weights, dropout."""
    metric: Annotated[MetricName | None, FirstDefault("accuracy")] = None
    """Validation metric that chooses the best checkpoint and drives early stopping. Default: the first of the task's,
    which for classification is accuracy, or microF1 where labels is Multi."""
    evaluate: EvaluateSpec = EvaluateSpec()
    """When the validation data is evaluated."""
    checkpoint: Annotated[CheckpointSpec, EXECUTION] = CheckpointSpec()
    """When checkpoints are written."""
    early_stopping: EarlyStoppingSpec | None = None
    """Ends phases that no longer improve; where the strategy has untilPlateau, that alone ends the phases it is about.
    Default: every phase runs to its end."""
