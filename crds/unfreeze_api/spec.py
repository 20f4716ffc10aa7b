"""FineTuneJob `unfreeze.dev/v1alpha1`: what a user may write. The CRD's schema is generated from these models.

Field names are those of the ecosystem: Kubeflow's runPolicy and numProcPerNode, PEFT's own words for adapters.
A field is here only if it works; a union is a `type` plus a member of the same name.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.config import JsonDict

from unfreeze_api.model import Model, Rule, schema_rules

GROUP = "unfreeze.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "FineTuneJob"
PLURAL = "finetunejobs"

_NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
# No path may step out of its claim by `..`.
_SEGMENT = r"([^/.]|\.[^/.]|\.\.[^/])[^/]*"
SOURCE_PATTERN = rf"^(pvc://{_NAME}(/{_SEGMENT})*|file://(/{_SEGMENT})+)$"

_SOURCE_RULE = Rule(
    f"self.matches(r'{SOURCE_PATTERN}')",
    "must be pvc://CLAIM/PATH or file:///PATH, without '..', '//' or a '/' at the end",
)
# Suffixes as Kubernetes has them; a negative amount has no meaning here.
_QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"
_QUANTITY_RULE = Rule(
    f"type(self) == int ? int(self) >= 0 : string(self).matches(r'{_QUANTITY}')",
    "must be a quantity of Kubernetes, like 2, 500m or 64Gi",
)

Source = Annotated[str, Field(min_length=1, max_length=1024, json_schema_extra=schema_rules(_SOURCE_RULE))]
Column = Annotated[str, Field(min_length=1, max_length=256)]
Quantity = Annotated[
    int | str,
    Field(json_schema_extra={"x-kubernetes-int-or-string": True, "maxLength": 64, **schema_rules(_QUANTITY_RULE)}),
]
_NAME_RULE = Rule(
    f"self.matches(r'^{_NAME}$')",
    "must be the name of an object: lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
)
Name = Annotated[str, Field(min_length=1, max_length=253, json_schema_extra=schema_rules(_NAME_RULE))]
_LABEL_RULE = Rule(
    "self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",
    "must be the value of a label: letters, digits, '-', '_' and '.', with a letter or digit at both ends",
)
LabelValue = Annotated[str, Field(max_length=63, json_schema_extra=schema_rules(_LABEL_RULE))]
EnvName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


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


class TextClassificationSpec(Model):
    """Options of text classification."""

    max_length: int = Field(default=128, ge=1, le=131072)
    """Tokens kept of each text; longer texts are cut."""


class ImageClassificationSpec(Model):
    """Options of image classification."""

    image_size: int | None = Field(default=None, ge=8, le=4096)
    """Height and width in pixels that images are resized to. Without it: the size that the model was pretrained
    with."""
    augmentation: Literal["None", "RandomResizedCropFlip"] = "RandomResizedCropFlip"
    """How training images are varied: None resizes and crops the centre; RandomResizedCropFlip crops at random and
    mirrors half of the images."""


class TaskSpec(Model):
    """What the model learns to do; the labels come from the training data."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.textClassification) || self.type == 'TextClassification'",
            "textClassification is only allowed when type is TextClassification",
            ".textClassification",
        ),
        Rule(
            "!has(self.imageClassification) || self.type == 'ImageClassification'",
            "imageClassification is only allowed when type is ImageClassification",
            ".imageClassification",
        ),
    )

    type: Literal["TextClassification", "ImageClassification"]
    """The task: TextClassification needs a transformers model, ImageClassification a timm model."""
    text_classification: TextClassificationSpec | None = None
    """Options of TextClassification."""
    image_classification: ImageClassificationSpec | None = None
    """Options of ImageClassification."""


class ColumnsSpec(Model):
    """Which columns of a table hold what."""

    text: Column | None = None
    """Column with the text, for TextClassification. Default: text."""
    image: Column | None = None
    """Column with the path of the image, relative to the table's folder, for ImageClassification from a table.
    Default: image."""
    label: Column | None = None
    """Column with the label. Default: label."""


class TrainSpec(Model):
    """The data that the model learns from."""

    source: Source
    """A file (.csv, .jsonl, .parquet) or a folder with one sub-folder of images per label: pvc://CLAIM/PATH or
    file:///PATH."""
    columns: ColumnsSpec | None = None
    """Names of the columns, when they are not the default ones."""


class HeldOutSpec(Model):
    """Data that the model does not learn from: a source of its own, or a share of the training data."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.source) != has(self.fraction)", "set exactly one of source and fraction"),
        Rule(
            "!has(self.columns) || has(self.source)",
            "columns needs source: a fraction has the columns of train",
            ".columns",
        ),
    )

    source: Source | None = None
    """A file or image folder of its own, as in train."""
    fraction: float | None = Field(default=None, gt=0, lt=1)
    """Share of the training data that is held out, chosen at random by training.seed with the shares of the labels
    kept."""
    columns: ColumnsSpec | None = None
    """Names of the columns, when they are not those of train."""


class DataSpec(Model):
    """Training, validation and test data."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.validation.fraction) ? self.validation.fraction : 0.0)"
            " + (has(self.test) && has(self.test.fraction) ? self.test.fraction : 0.0) < 1.0",
            "validation.fraction and test.fraction together must be below 1: something has to be left to train on",
        ),
    )

    train: TrainSpec
    """What the model learns from."""
    validation: HeldOutSpec = HeldOutSpec(fraction=0.1)
    """What checkpoints are compared on. Default: a tenth of the training data."""
    test: HeldOutSpec | None = None
    """What the finished model is measured on, once. Without it the report has no test metrics."""


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


class DeepSpeedSpec(Model):
    """Options of DeepSpeed."""

    zero_stage: int = Field(default=2, ge=1, le=2)
    """What is sharded over the workers: 1 the optimizer's state, 2 gradients too."""


class ResourcesSpec(Model):
    """Resources of each pod, as in any container."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.limits) || self.limits.all(name, !name.contains('/')"
            " || string(self.limits[name]).matches('^[0-9]+$'))",
            "accelerators and other resources with a / in their name come in whole numbers",
            ".limits",
        ),
        Rule(
            "!has(self.requests) || self.requests.all(name, !name.contains('/') || (has(self.limits)"
            " && name in self.limits && string(self.requests[name]) == string(self.limits[name])))",
            "accelerators and other resources with a / in their name must stand in limits; they may stand in requests"
            " with the same number",
            ".requests",
        ),
        Rule(
            "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits)"
            " || !isQuantity(string(self.requests[name])) || !isQuantity(string(self.limits[name]))"
            " || quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)",
            "nothing can be requested above its limit",
            ".requests",
        ),
    )

    requests: dict[str, Quantity] | None = Field(default=None, max_length=32)
    """What the scheduler reserves."""
    limits: dict[str, Quantity] | None = Field(default=None, max_length=32)
    """What a pod may use at most; accelerators such as nvidia.com/gpu stand here."""


class DistributionSpec(Model):
    """How many pods and workers train together, and by which engine."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.deepSpeed) || self.engine == 'DeepSpeed'",
            "deepSpeed is only allowed when engine is DeepSpeed",
            ".deepSpeed",
        ),
        Rule(
            "!has(self.numProcPerNode) || type(self.numProcPerNode) == int || string(self.numProcPerNode) == 'Auto'",
            "numProcPerNode must be Auto or a number without quotes",
            ".numProcPerNode",
        ),
    )

    num_nodes: int = Field(default=1, ge=1, le=512)
    """Pods that train together."""
    num_proc_per_node: int | Literal["Auto"] = Field(
        default="Auto",
        json_schema_extra={"x-kubernetes-int-or-string": True, "maxLength": 16, "minimum": 1, "maximum": 64},
    )
    """Workers in each pod. Auto: one for each accelerator in resourcesPerNode.limits, else one."""
    engine: Literal["DDP", "DeepSpeed"] = "DDP"
    """What keeps the workers in step: DDP replicates the model, DeepSpeed shards its training state."""
    deep_speed: DeepSpeedSpec | None = None
    """Options of DeepSpeed."""
    resources_per_node: ResourcesSpec = ResourcesSpec()
    """Resources of each pod."""


class OutputSpec(Model):
    """Where the run's folder lies, and what the finished model is written as."""

    destination: Source
    """Folder for checkpoints, the exported model and report.json: pvc://CLAIM/PATH (a claim that all pods can write
    to) or file:///PATH."""
    export: list[Literal["Model", "Adapter", "Merged"]] | None = Field(
        default=None, min_length=1, max_length=2, json_schema_extra={"x-kubernetes-list-type": "set"}
    )
    """What is written: Model (without an adapter: a folder that plain transformers or timm loads), Adapter (the
    adapter alone, for PEFT) or Merged (the adapter folded into its base). Default: Model, with an adapter: Adapter."""


class RunPolicySpec(Model):
    """The life of the job in the cluster."""

    suspend: bool = False
    """True stops the pods after a checkpoint; false goes on from it."""
    backoff_limit: int = Field(default=3, ge=0, le=1000)
    """Failed pods after which the job fails; errors of the job itself (exit code 2) fail it at once."""
    active_deadline_seconds: int | None = Field(default=None, ge=1, le=315360000)
    """Seconds of running, without those suspended, after which the job fails."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0, le=315360000)
    """Seconds after which a finished job is deleted. Default: never."""


class SecretKeySelector(Model):
    """A key of a Secret in the job's namespace."""

    name: Name
    """Name of the Secret."""
    key: str = Field(min_length=1, max_length=253)
    """Key in the Secret."""
    optional: bool = False
    """Whether the pod may start without it."""


class EnvSource(Model):
    """Where an environment variable's value comes from."""

    secret_key_ref: SecretKeySelector
    """A key of a Secret."""


class EnvVar(Model):
    """One environment variable."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.value) != has(self.valueFrom)", "set exactly one of value and valueFrom"),
        Rule(
            "!self.name.startsWith('UNFREEZE_') && !(self.name in ['POD_NAME', 'POD_IP', 'JOB_COMPLETION_INDEX'])",
            "POD_NAME, POD_IP, JOB_COMPLETION_INDEX and names that start with UNFREEZE_ are set by the operator",
            ".name",
        ),
    )

    name: EnvName
    """Name of the variable."""
    value: str | None = Field(default=None, max_length=4096)
    """Its value. Never a secret: use valueFrom."""
    value_from: EnvSource | None = None
    """Where its value comes from."""


class Toleration(Model):
    """A taint that the pods tolerate, as in any pod."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.operator == 'Exists' || (has(self.key) && self.key != '')", "without key set operator Exists"),
        Rule(
            "!has(self.value) || self.value == '' || self.operator == 'Equal'", "value needs operator Equal", ".value"
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds needs effect NoExecute",
            ".tolerationSeconds",
        ),
    )

    key: str | None = Field(default=None, max_length=317)
    """Key of the taint; none tolerates every key."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """How key and value are compared."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; none tolerates every effect."""
    toleration_seconds: int | None = Field(default=None, ge=0, le=315360000)
    """How long a NoExecute taint is tolerated."""


class LocalObjectReference(Model):
    """An object in the job's namespace."""

    name: Name
    """Name of the object."""


# The lowest level has no type: the API server compares such values as a whole, but objects with unknown fields only by
# the fields that both have, so that a change of affinity would go unnoticed by the rule that forbids it.
_AFFINITY: JsonDict = {
    kind: {
        "description": f"The pod's {kind}.",
        "type": "object",
        "properties": {
            f"{strength}DuringSchedulingIgnoredDuringExecution": {
                "description": f"What is {strength}, as in any pod.",
                "x-kubernetes-preserve-unknown-fields": True,
            }
            for strength in ("required", "preferred")
        },
    }
    for kind in ("nodeAffinity", "podAffinity", "podAntiAffinity")
}


class TemplateSpec(Model):
    """What the pods get besides: placement, image, environment."""

    image: str | None = Field(default=None, min_length=1, max_length=1024)
    """Trainer image. Default: the operator's."""
    image_pull_secrets: list[LocalObjectReference] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    """Secrets that the image is pulled with."""
    node_selector: dict[str, LabelValue] | None = Field(default=None, max_length=64)
    """Labels that a node must have."""
    tolerations: list[Toleration] | None = Field(default=None, max_length=64)
    """Taints that the pods tolerate."""
    affinity: dict[str, Any] | None = Field(default=None, json_schema_extra={"properties": _AFFINITY})
    """Affinity as in any pod."""
    priority_class_name: Name | None = None
    """Priority class of the pods."""
    scheduler_name: str | None = Field(default=None, max_length=253)
    """Scheduler that places the pods."""
    runtime_class_name: Name | None = None
    """Runtime class of the pods."""
    env: list[EnvVar] | None = Field(
        default=None,
        max_length=128,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    """Environment variables of the trainer."""
    labels: dict[str, LabelValue] | None = Field(default=None, max_length=64)
    """Labels of the pods, beside the operator's."""
    annotations: dict[str, Annotated[str, Field(max_length=4096)]] | None = Field(default=None, max_length=64)
    """Annotations of the pods."""


def _immutable(field: str, reason: str = "delete the job and create it anew, or use another name") -> Rule:
    return Rule(
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        f"{field} cannot be changed: {reason}",
        f".{field}",
    )


_WHILE_SUSPENDED = "oldSelf.runPolicy.suspend && self.runPolicy.suspend"


class FineTuneJobSpec(Model):
    """What is trained, on what, and how much of the model may change."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.adapter) || self.strategy.type != 'FeatureExtraction'",
            "FeatureExtraction trains the head alone, an adapter would never be trained: remove adapter, or choose"
            " strategy.type FullFineTuning, which trains every adapter and the head",
            ".adapter",
        ),
        Rule(
            "!has(self.output.export) || has(self.adapter) || self.output.export.all(e, e == 'Model')",
            "Adapter and Merged need an adapter: add spec.adapter, or export Model",
            ".output.export",
        ),
        Rule(
            "!has(self.output.export) || !has(self.adapter) || self.output.export.all(e, e != 'Model')",
            "with an adapter export Adapter, Merged or both: Merged is the whole model",
            ".output.export",
        ),
        Rule(
            "self.strategy.type != 'GradualUnfreezing' || (has(self.strategy.gradualUnfreezing)"
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
        *(_immutable(field) for field in ("model", "task", "data", "strategy", "adapter", "training", "output")),
        Rule(
            "self.distribution.engine == oldSelf.distribution.engine"
            " && has(self.distribution.deepSpeed) == has(oldSelf.distribution.deepSpeed)"
            " && (!has(self.distribution.deepSpeed) || self.distribution.deepSpeed == oldSelf.distribution.deepSpeed)",
            "distribution.engine and distribution.deepSpeed cannot be changed: delete the job and create it anew, or"
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
            "self.runPolicy.backoffLimit == oldSelf.runPolicy.backoffLimit",
            "runPolicy.backoffLimit cannot be changed: delete the job and create it anew, or use another name",
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
    """Small new weights in place of changed ones. Default: none, the model's own weights are trained."""
    training: TrainingSpec = TrainingSpec()
    """The course of the training."""
    distribution: DistributionSpec = DistributionSpec()
    """How many pods and workers train together, and by which engine."""
    output: OutputSpec
    """Where the run's folder lies."""
    run_policy: RunPolicySpec = RunPolicySpec()
    """The life of the job in the cluster."""
    template: TemplateSpec = TemplateSpec()
    """What the pods get besides."""
