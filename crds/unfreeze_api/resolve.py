"""resolve(): a manifest's spec -> the resolved job that stands in job.json. Pure and total on valid specs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from pydantic_core import to_json

from unfreeze_api.contracts.first_fields import Fields, without_new_defaults
from unfreeze_api.fingerprint import fingerprint, first_fingerprint
from unfreeze_api.grammar.columns import Columned
from unfreeze_api.grammar.model import EXECUTION, HABIT, Before, Model, Since
from unfreeze_api.grammar.one_of import OneOf
from unfreeze_api.grammar.quantities import quantity
from unfreeze_api.sources import locate, needs
from unfreeze_api.sources.base import Places
from unfreeze_api.spec.adapter import AdapterSpec
from unfreeze_api.spec.data import ColumnsSpec, TaskSpec
from unfreeze_api.spec.distribution import DeepSpeedSpec, Offload
from unfreeze_api.spec.job import FineTuneJobSpec
from unfreeze_api.spec.quantization import QuantizationSpec
from unfreeze_api.spec.strategy import (
    STRATEGIES,
    GradualUnfreezingSpec,
    Schedule,
    StrategySpec,
)
from unfreeze_api.spec.tracking import TrackingSpec
from unfreeze_api.spec.training import TrainingSpec
from unfreeze_api.tasks import columns, task_type
from unfreeze_api.tasks.base import Metric

ACCELERATORS = ("nvidia.com/gpu", "amd.com/gpu", "habana.ai/gaudi", "gpu.intel.com/i915", "gpu.intel.com/xe")
"""Extended resources that count as accelerators."""


class Location(Model):
    """Where something lies: as the manifest says, and as the trainer sees it."""

    source: str
    """The manifest's text, for reports."""
    path: Annotated[str, EXECUTION]
    """The path for the trainer."""


class ResolvedModel(Location):
    """The pretrained model."""

    dtype: Literal["Float32"]
    initialization: Literal["Pretrained", "Random"]
    quantization: QuantizationSpec | None = None


class Columns(Columned, columns=columns(), named=True):
    """Names of the columns, all given."""


class Dataset(Location):
    """Data with a source of its own."""

    columns: Columns


class HeldOut(Model):
    """Data with a source of its own, or a share of the training data."""

    dataset: Dataset | None = None
    fraction: float | None = None


class ResolvedData(Model):
    """Training, validation and test data."""

    train: Dataset
    validation: HeldOut
    test: HeldOut | None = None
    on_error: Annotated[Literal["Fail", "Skip"], Since(2)] = "Fail"
    show_values: Annotated[bool, EXECUTION] = False
    """Whether messages outside of a pod's log may quote rows."""


class LearningRate(Model):
    """Learning rates with every default filled in."""

    head: float
    backbone: float
    layer_decay: float
    schedule: Schedule
    scope: Literal["Job", "Phase"]
    warmup_ratio: float
    rewarm_steps: int
    """0 without."""


class ResolvedStrategy(OneOf, kinds=STRATEGIES, noun="strategy"):
    """The strategy, with its options; GradualUnfreezing's have either blocksPerPhase or groups, and either epochsPerPhase or
    stepsPerPhase.
    """

    learning_rate: LearningRate


class ResolvedDistribution(Model):
    """Pods, workers and engine."""

    num_nodes: int = Field(ge=1)
    num_proc_per_node: int = Field(ge=1)
    accelerators_per_node: int = Field(ge=0)
    threads_per_proc: int | None = Field(default=None, ge=1)
    """Threads of each worker, from the pod's CPUs; without them the agent shares out what it finds. Sums over
    another number of threads differ in their last digits."""
    engine: Literal["DDP", "FSDP", "DeepSpeed"]
    zero_stage: int = Field(default=0, ge=0, le=3)
    """0 for an engine other than DeepSpeed."""
    offload: Offload = "None"
    """None for an engine other than DeepSpeed."""
    rendezvous_host: str
    """Name under which all pods reach pod 0."""
    rendezvous_port: int = Field(ge=1024, le=65535)

    @property
    def world_size(self) -> int:
        """Workers of the whole job."""
        return self.num_nodes * self.num_proc_per_node


class ResolvedOutput(Location):
    """The run's folder and the kinds of export."""

    source: Annotated[str, EXECUTION]
    """The manifest's text, for reports."""
    export: Annotated[list[Literal["Model", "Adapter", "Merged"]], EXECUTION]


class ResolvedMlflow(Model):
    """A run in MLflow; its credentials are in the environment."""

    uri: str
    experiment: str


class ResolvedWandb(Model):
    """A run in Weights & Biases; its credentials are in the environment."""

    project: str
    entity: str | None = None
    mode: Literal["Online", "Offline"]


class ResolvedTracking(Model):
    """Experiment trackers; without any when all are left out."""

    tensor_board: bool = False
    mlflow: ResolvedMlflow | None = None
    wandb: ResolvedWandb | None = None


class Semantics(Model):
    """What a run does where no field of the spec says it. A run keeps to its end what it began with."""

    pooling: Annotated[Literal["Architecture"], Before("Architecture")] = "Architecture"
    """What a text's head reads. Architecture: what the library's own class reads, often the first token."""
    dropout: Annotated[Literal["Everywhere"], Before("Everywhere")] = "Everywhere"
    """Where dropout is on in training. Everywhere: in frozen blocks too."""
    features: Annotated[Literal["Computed"], Before("Computed")] = "Computed"
    """Where the outputs of frozen blocks come from. Computed: anew in each step, no cache."""
    pictures: Annotated[Literal["AsShown", "AsConverted"], Before("AsConverted")] = "AsShown"
    """How a picture's file becomes 8 bits a channel. AsShown: as a viewer shows it (data/pictures.py). AsConverted: by
    Pillow's conversion alone, without orientation, range and ground."""
    positions: Annotated[Literal["Counted", "Guessed"], Before("Guessed")] = "Counted"
    """How many tokens a model takes. Counted: the rows of its table of positions, without those that its family spares.
    Guessed: from config.json and the tokenizer's limit."""
    held_out: Annotated[Literal["Proportional", "OfEachLabel"], Before("OfEachLabel")] = "Proportional"
    """What data.*.fraction holds out. Proportional: that share of all samples, of as many labels as it has room for.
    OfEachLabel: at least a sample of each label, however many there are."""
    order: Annotated[Literal["Permutation"], Before("Permutation")] = "Permutation"
    """Order of the samples. Permutation: of all of them, another one in each epoch (data/order.py)."""


class ResolvedJob(Model):
    """job.json: everything that the trainer needs; it reads nothing else."""

    schema_version: Annotated[Literal[1, 2], EXECUTION] = 1
    name: Annotated[str, EXECUTION]
    namespace: Annotated[str, EXECUTION]
    model: ResolvedModel
    task: TaskSpec
    data: ResolvedData
    strategy: ResolvedStrategy
    adapter: AdapterSpec | None = None
    """The member of its type is always there."""
    training: TrainingSpec
    distribution: Annotated[ResolvedDistribution, EXECUTION]
    output: ResolvedOutput
    tracking: Annotated[ResolvedTracking, EXECUTION] = ResolvedTracking()
    hang_timeout_seconds: Annotated[int | None, EXECUTION] = None
    """Silence of the workers that counts as a hang; without it the agent derives one."""
    semantics: Annotated[Semantics, HABIT] = Semantics()
    """No field of the spec: what this version does. Runs that an earlier one began have its values."""

    @property
    def metric(self) -> Metric:
        """What chooses the best checkpoint."""
        return task_type(self.task.type).metric(self.training.metric)

    def to_json(self, *, indent: int | None = None) -> str:
        """Return job.json, without fields that nobody set and that trainers of the first release do not know."""
        whole = self.model_dump(mode="json", exclude_none=True)
        given = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        return to_json(without_new_defaults(whole, given), indent=indent).decode()

    def fingerprint(self) -> str:
        """Return a hash of what is learned: neither the job's name, nor paths, nor how it is carried out.

        A run folder belongs to one fingerprint: the same job may resume in it, another one is refused.
        """
        return fingerprint(self, _derived(self))

    def fingerprints(self) -> list[str]:
        """Return the fingerprints of all formats that are still resumed, the present one first."""
        first = first_fingerprint(self, _derived(self))
        return [self.fingerprint(), *([first] if first else [])]


def claims(spec: FineTuneJobSpec) -> dict[str, bool]:
    """Return the volume claims that a job mounts, and for each whether it is written to."""
    held_out = [part.source for part in (spec.data.validation, spec.data.test) if part and part.source]
    read = [
        claim for source in (spec.model.source, spec.data.train.source, *held_out) for claim in needs(source).claims
    ]
    return dict.fromkeys(read, False) | dict.fromkeys(needs(spec.output.destination).claims, True)


def accelerators_per_node(spec: FineTuneJobSpec) -> int:
    """Return how many accelerators each pod asks for."""
    limits = spec.distribution.resources_per_node.limits or {}
    return sum(int(str(limits[name])) for name in ACCELERATORS if str(limits.get(name, "")).isdecimal())


def resolve(
    name: str,
    namespace: str,
    spec: FineTuneJobSpec,
    *,
    rendezvous_host: str,
    claim_folders: Mapping[str, str] | None = None,
) -> ResolvedJob:
    """Fill in every default of a valid spec that depends on something else, and every path.

    Parameters
    ----------
    name, namespace
        Of the FineTuneJob.
    spec
        A spec that the schema and its rules accept.
    rendezvous_host
        Name under which all pods reach pod 0.
    claim_folders
        Folder of each volume claim. Without it each claim lies where the operator mounts it.
    """
    accelerators = accelerators_per_node(spec)
    processes = spec.distribution.num_proc_per_node
    workers = max(1, accelerators) if processes == "Auto" else processes
    cpus = _cpus_per_node(spec)
    train_columns = _columns(spec.data.train.columns, Columns())

    places = Places(claims=claim_folders)

    def at(source: str) -> Location:
        return Location(source=source, path=locate(source, places))

    def dataset(source: str, own: ColumnsSpec | None) -> Dataset:
        place = at(source)
        return Dataset(source=place.source, path=place.path, columns=_columns(own, train_columns))

    validation, test = (
        part and HeldOut(fraction=part.fraction, dataset=dataset(part.source, part.columns) if part.source else None)
        for part in (spec.data.validation, spec.data.test)
    )
    assert validation is not None
    model = at(spec.model.source)
    output = at(spec.output.destination)
    deep_speed = spec.distribution.deep_speed or DeepSpeedSpec()
    job = ResolvedJob(
        name=name,
        namespace=namespace,
        model=ResolvedModel(
            source=model.source,
            path=model.path,
            dtype="Float32",
            initialization=spec.model.initialization,
            quantization=spec.model.quantization,
        ),
        task=spec.task.completed(),
        data=ResolvedData(
            train=dataset(spec.data.train.source, None),
            validation=validation,
            test=test,
            on_error=spec.data.on_error or "Fail",
            show_values=bool(spec.data.show_values),
        ),
        strategy=_strategy(spec.strategy, spec.adapter),
        adapter=spec.adapter and spec.adapter.completed(),
        training=spec.training.model_copy(update={"metric": spec.metric.name}),
        distribution=ResolvedDistribution(
            num_nodes=spec.distribution.num_nodes,
            num_proc_per_node=workers,
            accelerators_per_node=accelerators,
            threads_per_proc=max(1, cpus // workers) if cpus else None,
            engine=spec.distribution.engine,
            zero_stage=deep_speed.zero_stage if spec.distribution.engine == "DeepSpeed" else 0,
            offload=deep_speed.offload,
            rendezvous_host=rendezvous_host,
            rendezvous_port=rendezvous_port(namespace, name),
        ),
        output=ResolvedOutput(
            source=output.source,
            path=output.path,
            export=list(spec.output.exports or [_default_export(spec.adapter)]),
        ),
        tracking=_tracking(spec.tracking, namespace),
        hang_timeout_seconds=spec.run_policy.hang_timeout_seconds,
    )
    return job.model_copy(update={"schema_version": schema_version(job)})


def schema_version(job: Model) -> int:
    """Return the schemaVersion that a trainer must know for what is set in a job, see `Since`."""
    found = [1]
    for name, field in type(job).model_fields.items():
        value = getattr(job, name)
        if value == field.get_default(call_default_factory=True):
            continue
        found += [mark.schema_version for mark in field.metadata if isinstance(mark, Since)]
        parts = value if isinstance(value, list) else [value]
        found += [schema_version(part) for part in parts if isinstance(part, Model)]
    return max(found)


_WARMUP = {"OneCycle": 0.3, "SlantedTriangular": 0.1}
"""pct_start of torch's OneCycleLR; cut_frac of Howard and Ruder 2018, section 3.2."""
_BLOCKS_PER_PHASE, _EPOCHS_PER_PHASE = 1, 1.0


def _backbone_rate(strategy: str, head: float, adapter: AdapterSpec | None) -> float:
    like_head = strategy == "BitFit" or (adapter is not None and adapter.base_weights == "Frozen")
    return head if like_head else head / 10


def _warmup_ratio(schedule: Schedule) -> float:
    return _WARMUP.get(schedule, 0.06)


def _derived(job: ResolvedJob) -> Fields:
    """Return what resolve() fills in for each field that nobody sets, beside the defaults of the models."""
    strategy, rate = job.strategy, job.strategy.learning_rate
    return {
        "model": {"dtype": "Float32"},
        "strategy": {
            "gradualUnfreezing": {"blocksPerPhase": _BLOCKS_PER_PHASE, "epochsPerPhase": _EPOCHS_PER_PHASE},
            "learningRate": {
                "backbone": _backbone_rate(strategy.type, rate.head, job.adapter),
                "warmupRatio": _warmup_ratio(rate.schedule),
                "rewarmSteps": 0,
            },
        },
    }


def _strategy(strategy: StrategySpec, adapter: AdapterSpec | None) -> ResolvedStrategy:
    rate, strategy = strategy.learning_rate, strategy.completed()
    options = strategy.options
    if isinstance(options, GradualUnfreezingSpec):
        options = options.model_copy(
            update={
                "blocks_per_phase": None if options.groups else options.blocks_per_phase or _BLOCKS_PER_PHASE,
                "epochs_per_phase": None if options.steps_per_phase else options.epochs_per_phase or _EPOCHS_PER_PHASE,
            }
        )
    return ResolvedStrategy(
        type=strategy.type,
        **({strategy.kind.field: options} if options else {}),
        learning_rate=LearningRate(
            head=rate.head,
            backbone=rate.backbone or _backbone_rate(strategy.type, rate.head, adapter),
            layer_decay=rate.layer_decay,
            schedule=rate.schedule,
            scope=rate.scope,
            warmup_ratio=_warmup_ratio(rate.schedule) if rate.warmup_ratio is None else rate.warmup_ratio,
            rewarm_steps=rate.rewarm_steps or 0,
        ),
    )


def _default_export(adapter: AdapterSpec | None) -> Literal["Model", "Adapter", "Merged"]:
    if adapter is None:
        return "Model"
    return "Adapter" if adapter.base_weights == "Frozen" else "Merged"


def _tracking(tracking: TrackingSpec | None, namespace: str) -> ResolvedTracking:
    if tracking is None:
        return ResolvedTracking()
    mlflow, wandb = tracking.mlflow, tracking.wandb
    return ResolvedTracking(
        tensor_board=tracking.tensor_board is not None,
        mlflow=mlflow and ResolvedMlflow(uri=mlflow.uri, experiment=mlflow.experiment or namespace),
        wandb=wandb and ResolvedWandb(project=wandb.project or namespace, entity=wandb.entity, mode=wandb.mode),
    )


def rendezvous_port(namespace: str, name: str) -> int:
    """Return a port of the job's own, so that jobs that share a host network do not meet."""
    return 20000 + zlib.crc32(f"{namespace}/{name}".encode()) % 10000


def _cpus_per_node(spec: FineTuneJobSpec) -> int:
    resources = spec.distribution.resources_per_node
    text = str((resources.limits or {}).get("cpu") or (resources.requests or {}).get("cpu") or 0)
    cpus = quantity(text) if text[-1] in _PLAIN else None  # in thousands: legal, and nobody's way to count CPUs
    return max(1, int(cpus)) if cpus else 0  # half a CPU runs one thread


_PLAIN = frozenset("0123456789.m")
"""Last characters of the ways in which people count CPUs."""


def _columns(own: ColumnsSpec | None, default: Columns) -> Columns:
    given = own.model_dump(exclude_none=True) if own else {}
    return default.model_copy(update=given)
