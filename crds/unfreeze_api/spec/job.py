"""FineTuneJob `unfreeze.dev/v1alpha1`: what a user may write. The CRD's schema is generated from these models.

Field names are those of the ecosystem: Kubeflow's runPolicy and numProcPerNode, PEFT's own words for adapters.
A field is here only if it works; a union is a `type` plus a member of the same name.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from unfreeze_api.contracts.names import API_VERSION, GROUP, KIND, PLURAL, VERSION
from unfreeze_api.grammar.fields import Source
from unfreeze_api.grammar.model import Formerly, Model, Rule
from unfreeze_api.spec.adapter import PROMPTS, SHARED, UNMERGEABLE, AdapterSpec
from unfreeze_api.spec.data import DataSpec, TaskSpec
from unfreeze_api.spec.distribution import DistributionSpec
from unfreeze_api.spec.quantization import QUANTIZATION_RULES, QuantizationSpec
from unfreeze_api.spec.strategy import StrategySpec
from unfreeze_api.spec.template import TemplateSpec
from unfreeze_api.spec.tracking import TrackingSpec
from unfreeze_api.spec.training import TrainingSpec
from unfreeze_api.tasks import TASKS, task_type
from unfreeze_api.tasks.base import Metric

__all__ = ["API_VERSION", "GROUP", "KIND", "PLURAL", "VERSION", "FineTuneJobSpec"]


class ModelSpec(Model):
    """The pretrained model that the job starts from."""

    source: Source
    """Where the model lies: pvc://CLAIM/PATH for a folder on a volume claim, or file:///PATH for a folder inside the
    trainer's container (on this machine for `unfreeze run`). A folder as transformers' save_pretrained writes it, or
    with timm's config.json and model.safetensors."""
    dtype: Literal["Auto", "Float32"] = "Auto"
    """Type of the loaded weights. Auto keeps float32 weights; mixed precision is training.precision."""
    initialization: Literal["Pretrained", "Random"] = "Pretrained"
    """Random throws the pretrained weights away and keeps only the architecture: the from-scratch baseline that
    transfer has to beat."""
    quantization: QuantizationSpec | None = None
    """Hold the frozen weights in 8 or 4 bits, so that a large model fits beside its adapter. Default: none, float32."""


class OutputSpec(Model):
    """Where the run's folder lies, and what the finished model is written as."""

    destination: Source
    """Folder for checkpoints, the exported model and report.json: pvc://CLAIM/PATH (a claim that all pods can write
    to) or file:///PATH. A folder of the run's own: no source may contain it or lie in it, and a run starts in none that
    holds model/, adapter/, checkpoints/ or report.json that another hand has made."""
    exports: Annotated[list[Literal["Model", "Adapter", "Merged"]] | None, Formerly("export")] = Field(
        default=None, min_length=1, max_length=2, json_schema_extra={"x-kubernetes-list-type": "set"}
    )
    """What is written: Model (without an adapter: a folder that plain transformers or timm loads), Adapter (the
    adapter alone, for PEFT) or Merged (the adapter folded into its base). Default: Model; with an adapter: Adapter, or
    Merged if its baseWeights is ByStrategy."""


class RunPolicySpec(Model):
    """The life of the job in the cluster."""

    suspend: bool = False
    """True stops the pods after a checkpoint; false resumes from it."""
    backoff_limit: int = Field(default=3, ge=0, le=1000)
    """Failed pods after which the job fails. Evictions, preemptions, drains, deleted pods and suspends are free; errors
    of the job itself (exit code 2) fail it at once."""
    active_deadline_seconds: int | None = Field(default=None, ge=1, le=315360000)
    """Seconds of running, without those suspended, after which the job fails."""
    startup_timeout_seconds: int | None = Field(default=None, ge=1, le=315360000)
    """Seconds that the pods may take until all of them run, at the start, after a resume and when one is replaced; then
    the job fails, and says which pod waits for what. Time in a queue does not count. Default: no limit."""
    hang_timeout_seconds: int | None = Field(default=None, ge=10, le=86400)
    """Seconds without any news from a training's workers (steps, evaluations and checkpoints give news), counted from
    its first step, after which the stacks of all ranks go to the pods' logs and the workers are started again from the
    newest checkpoint, in the same pods. Default: 20 times the slowest step so far, at least 600; 1800 while it evaluates
    or exports."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0, le=315360000)
    """Seconds after which a finished job is deleted. Default: never."""
    clean_pod_policy: Literal["Running", "All", "None"] = "Running"
    """What becomes of the pods when the job has ended. Running stops those that still run and keeps the others, so that
    their logs can be read. All deletes the child Job with every pod, once their termination messages are in the
    status. None deletes nothing by itself; pods that still run when a job fails are stopped all the same, by Kubernetes'
    own Job controller."""


def _immutable(field: str, reason: str = "delete and recreate the job, or use another name") -> Rule:
    return Rule(
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        f"{field} cannot be changed: {reason}",
        f".{field}",
    )


_OF_TEXT = [task.name for task in TASKS if task.reads_text]

_ADAPTER_RULES = (
    Rule(
        "!has(self.adapter) || self.strategy.type != 'FeatureExtraction'",
        "FeatureExtraction trains the head alone, an adapter would never be trained: remove adapter, or choose"
        " strategy.type FullFineTuning, which trains every adapter and the head",
        ".adapter",
    ),
    Rule(
        "!has(self.adapter) || self.strategy.type != 'BitFit'",
        "BitFit and an adapter both say what trains in place of the weights: remove one of them",
        ".adapter",
    ),
    Rule(
        "!has(self.adapter) || !has(self.strategy.gradualUnfreezing)"
        " || self.strategy.gradualUnfreezing.order != 'ChainThaw'",
        "ChainThaw trains each block alone, and not every block has a part of the adapter: remove adapter, or set"
        " order to FromTop",
        ".adapter",
    ),
    Rule(
        "!has(self.adapter) || self.adapter.baseWeights == 'Frozen' || self.strategy.type != 'FullFineTuning'",
        "with baseWeights ByStrategy FullFineTuning trains every weight, an adapter beside them is of no use: remove"
        " adapter, or choose PartialFineTuning, GradualUnfreezing or LinearProbeThenFineTune",
        ".adapter",
    ),
    Rule(
        f"!has(self.adapter) || !(self.adapter.type in {list(PROMPTS)}) || self.task.type in {_OF_TEXT}",
        f"{', '.join(PROMPTS)} stand before the words of a text: choose another adapter for task.type"
        f" {' or '.join(task.name for task in TASKS if not task.reads_text)}",
        ".adapter",
    ),
    Rule(
        f"!has(self.adapter) || !(self.adapter.type in {list(PROMPTS)})"
        " || self.strategy.type in ['FullFineTuning', 'LinearProbeThenFineTune']",
        f"{', '.join(PROMPTS)} belong to no block that could be trained alone: choose strategy.type FullFineTuning, or"
        " LinearProbeThenFineTune for the head first",
        ".adapter",
    ),
    Rule(
        "!has(self.adapter) || self.adapter.type != 'AdaLoRA'"
        " || self.strategy.type in ['FullFineTuning', 'LinearProbeThenFineTune']",
        "AdaLoRA gives ranks to the modules that need them most, so all of them train at once: choose strategy.type"
        " FullFineTuning, LinearProbeThenFineTune for the head first, or adapter.type LoRA",
        ".adapter",
    ),
    Rule(
        "!has(self.adapter) || self.adapter.type != 'AdaLoRA' || self.distribution.engine == 'DDP'"
        " || (has(self.distribution.deepSpeed) && self.distribution.deepSpeed.zeroStage == 0)",
        "AdaLoRA weighs each weight by its gradient, and this engine holds gradients in shares: choose distribution.engine"
        " DDP, deepSpeed.zeroStage 0, or adapter.type LoRA",
        ".adapter",
    ),
    Rule(
        f"!has(self.adapter) || !has(self.adapter.peft) || !(self.adapter.peft.method in {list(SHARED)})"
        " || self.distribution.engine != 'FSDP'",
        f"the layers of {', '.join(SHARED)} share parameters, which FSDP cannot divide: choose distribution.engine DDP or"
        " DeepSpeed",
        ".adapter",
    ),
    Rule(
        "!has(self.output.exports) || has(self.adapter) || self.output.exports.all(e, e == 'Model')",
        "Adapter and Merged need an adapter: add spec.adapter, or export Model",
        ".output.exports",
    ),
    Rule(
        "!has(self.output.exports) || !has(self.adapter) || self.output.exports.all(e, e != 'Model')",
        "with an adapter export Adapter, Merged or both: Merged is the whole model",
        ".output.exports",
    ),
    Rule(
        "!has(self.output.exports) || !has(self.adapter) || self.adapter.baseWeights == 'Frozen'"
        " || self.output.exports.all(e, e == 'Merged')",
        "with baseWeights ByStrategy the adapter is half of what was trained: export Merged, which has all of it",
        ".output.exports",
    ),
    Rule(
        f"!has(self.output.exports) || !has(self.adapter) || !(self.adapter.type in {list(UNMERGEABLE)})"
        " || self.output.exports.all(e, e == 'Adapter')",
        f"{', '.join(UNMERGEABLE)} cannot be folded into the base's weights: export Adapter",
        ".output.exports",
    ),
)


def _apart(path: str, *optional: str) -> Rule:
    """Say that a source and output.destination do not contain each other."""
    source = f"self.{path}"
    given = "".join(f"!has(self.{member}) || " for member in optional)
    return Rule(
        f"{given}!({source} + '/').startsWith(self.output.destination + '/')"
        f" && !(self.output.destination + '/').startsWith({source} + '/')",
        f"{path} and output.destination must not contain each other, the run would write among what it reads: choose an"
        " output.destination beside it",
        ".output.destination",
    )


_APART_RULES = (
    _apart("model.source"),
    _apart("data.train.source"),
    _apart("data.validation.source", "data.validation.source"),
    _apart("data.test.source", "data.test", "data.test.source"),
)


_WHILE_SUSPENDED = "oldSelf.runPolicy.suspend && self.runPolicy.suspend"


class FineTuneJobSpec(Model):
    """What is trained, on what, and how much of the model may change."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *_ADAPTER_RULES,
        *QUANTIZATION_RULES,
        *_APART_RULES,
        Rule(
            "self.strategy.type != 'GradualUnfreezing'"
            " || (has(self.strategy.gradualUnfreezing) && has(self.strategy.gradualUnfreezing.stepsPerPhase))"
            " || (has(self.strategy.gradualUnfreezing) && has(self.strategy.gradualUnfreezing.epochsPerPhase)"
            " ? double(self.strategy.gradualUnfreezing.epochsPerPhase) : 1.0) < double(self.training.epochs)",
            "gradualUnfreezing.epochsPerPhase (1 when not given) must be below training.epochs, the epochs of all phases"
            " together",
            ".strategy",
        ),
        Rule(
            "self.strategy.type != 'LinearProbeThenFineTune' || (has(self.strategy.linearProbeThenFineTune)"
            " ? double(self.strategy.linearProbeThenFineTune.probeEpochs) : 1.0) < double(self.training.epochs)",
            "linearProbeThenFineTune.probeEpochs (1 when not given) must be below training.epochs, the epochs of both"
            " phases together",
            ".strategy",
        ),
        Rule(
            "self.training.batchSize >= self.distribution.numNodes"
            " * (type(self.distribution.numProcPerNode) == int ? self.distribution.numProcPerNode : 1)",
            "batchSize counts the samples of all workers together and must give each worker at least one",
            ".training.batchSize",
        ),
        Rule(
            "!self.training.compile || self.distribution.engine != 'DeepSpeed' || !has(self.distribution.deepSpeed)"
            " || self.distribution.deepSpeed.zeroStage < 3",
            "stage 3 gathers weights inside of what would be compiled: choose engine FSDP, which gathers them around it, a"
            " lower deepSpeed.zeroStage, or set compile to false",
            ".training.compile",
        ),
        *(_immutable(field) for field in ("model", "task", "data", "strategy", "adapter", "training", "output")),
        Rule(
            "self.distribution.engine == oldSelf.distribution.engine"
            " && has(self.distribution.deepSpeed) == has(oldSelf.distribution.deepSpeed)"
            " && (!has(self.distribution.deepSpeed) || self.distribution.deepSpeed == oldSelf.distribution.deepSpeed)",
            "distribution.engine and distribution.deepSpeed cannot be changed: delete and recreate the job, or"
            " use another name",
            ".distribution",
        ),
        Rule(
            f"self.distribution == oldSelf.distribution || ({_WHILE_SUSPENDED})",
            "distribution can only be changed while runPolicy.suspend is true: suspend the job first, then change it,"
            " then resume",
            ".distribution",
        ),
        Rule(
            f"self.template == oldSelf.template || ({_WHILE_SUSPENDED})",
            "template can only be changed while runPolicy.suspend is true: suspend the job first, then change it, then"
            " resume",
            ".template",
        ),
        Rule(
            "(has(self.tracking) == has(oldSelf.tracking) && (!has(self.tracking) || self.tracking == oldSelf.tracking))"
            f" || ({_WHILE_SUSPENDED})",
            "tracking can only be changed while runPolicy.suspend is true: suspend the job first, then change it, then"
            " resume",
            ".tracking",
        ),
        Rule(
            "(has(self.runPolicy.hangTimeoutSeconds) == has(oldSelf.runPolicy.hangTimeoutSeconds)"
            " && (!has(self.runPolicy.hangTimeoutSeconds)"
            " || self.runPolicy.hangTimeoutSeconds == oldSelf.runPolicy.hangTimeoutSeconds))"
            f" || ({_WHILE_SUSPENDED})",
            "runPolicy.hangTimeoutSeconds can only be changed while runPolicy.suspend is true: suspend the job first,"
            " then change it, then resume",
            ".runPolicy.hangTimeoutSeconds",
        ),
        Rule(
            "self.runPolicy.backoffLimit == oldSelf.runPolicy.backoffLimit",
            "runPolicy.backoffLimit cannot be changed: delete and recreate the job, or use another name",
            ".runPolicy.backoffLimit",
        ),
    )

    model: ModelSpec
    """The pretrained model that the job starts from."""
    task: TaskSpec
    """What the model learns to do."""
    data: DataSpec
    """Training, validation and test data."""
    strategy: StrategySpec
    """How much of the model may change, and when."""
    adapter: AdapterSpec | None = None
    """Small new weights in place of changed ones, or beside them. Default: none, the model's own weights are trained."""
    training: TrainingSpec = TrainingSpec()
    """The course of the training."""
    distribution: DistributionSpec = DistributionSpec()
    """How many pods and workers train together, and by which engine."""
    output: OutputSpec
    """Where the run's folder lies."""
    tracking: TrackingSpec | None = None
    """Experiment trackers that get the training's figures besides. Default: none."""
    run_policy: RunPolicySpec = RunPolicySpec()
    """The life of the job in the cluster."""
    template: TemplateSpec = TemplateSpec()
    """What the pods get besides."""

    @property
    def metric(self) -> Metric:
        """What chooses the best checkpoint: training.metric, or the first of the task's."""
        return task_type(self.task.type).metric(self.training.metric)
