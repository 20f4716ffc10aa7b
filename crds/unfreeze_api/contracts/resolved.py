"""job.json, by which the operator tells the trainer its job: everything is said in it, and the trainer reads nothing else.

`resolve` of each part completes what the manifest says of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field
from pydantic_core import to_json

from unfreeze_api.contracts.first_fields import FIRST_FIELDS, Fields, without_new_defaults
from unfreeze_api.fingerprint import fingerprint, first_fingerprint
from unfreeze_api.grammar.columns import Column, Columned
from unfreeze_api.grammar.model import EXECUTION, HABIT, Before, Model, Since
from unfreeze_api.grammar.one_of import OneOf
from unfreeze_api.sources import locate
from unfreeze_api.sources.base import Places
from unfreeze_api.spec.adapter import AdapterSpec
from unfreeze_api.spec.data import ColumnsSpec, DataSpec, HeldOutSpec, TaskSpec
from unfreeze_api.spec.distribution import DeepSpeedSpec, DistributionSpec, Offload
from unfreeze_api.spec.evidence import TRAINING_GUARDS, AnchorSpec, EvidenceSpec, ForgettingSpec, usual_replay_share
from unfreeze_api.spec.model import Modality, ModelSpec
from unfreeze_api.spec.output import ExportKind, Inputs
from unfreeze_api.spec.quantization import QuantizationSpec
from unfreeze_api.spec.run_policy import BudgetSpec
from unfreeze_api.spec.strategy import (
    BLOCKS_PER_PHASE,
    DEFAULT_RUNGS,
    EPOCHS_PER_PHASE,
    STRATEGIES,
    LearningRateSpec,
    Schedule,
    StrategySpec,
    usual_backbone_rate,
    usual_warmup_ratio,
)
from unfreeze_api.spec.tracking import TrackingSpec
from unfreeze_api.spec.training import TrainingSpec
from unfreeze_api.tasks import columns, task_type
from unfreeze_api.tasks.base import Metric

if TYPE_CHECKING:
    from unfreeze_api.spec.job import FineTuneJobSpec
    from unfreeze_api.spec.stages import StageSpec


class Location(Model):
    """Where something lies: as the manifest says, and as the trainer sees it."""

    source: str
    """The manifest's text, for reports."""
    path: Annotated[str, EXECUTION]
    """The path for the trainer."""

    @classmethod
    def resolve(cls, source: str, places: Places, **more: Any) -> Self:
        """Return where a source lies, with what else is said of it."""
        return cls(source=source, path=locate(source, places), **more)


class Tower(NamedTuple):
    """A pretrained encoder of one modality."""

    modality: Modality
    source: str
    path: str


class ResolvedModel(Location):
    """The pretrained model."""

    dtype: Literal["Float32"]
    initialization: Literal["Pretrained", "Random"]
    quantization: QuantizationSpec | None = None
    frozen_dtype: Annotated[Literal["Float32"] | None, EXECUTION] = None
    """Float32: weights that do not train are float32 too; None: they may keep the type of their files. Nothing that is learned
    depends on it."""
    candidates: Annotated[list[str] | None, Since(2)] = None
    """The bases of which the run chooses one at its start; source and path are empty until then."""
    candidate_paths: Annotated[list[str] | None, EXECUTION] = None
    """The path of each for the trainer."""
    modalities: Annotated[list[Modality] | None, Since(2)] = None
    """What each of several encoders reads; source and path are empty then."""
    tower_sources: Annotated[list[str] | None, Since(2)] = None
    """Where each of them lies."""
    tower_paths: Annotated[list[str] | None, EXECUTION] = None
    """The path of each for the trainer."""
    stage_path: Annotated[str | None, EXECUTION] = None
    """Folder of the weights that the stages before have left, in place of path: filled in by the trainer."""

    @property
    def weights_path(self) -> str:
        """Where the weights lie that the training starts from."""
        return self.stage_path or self.path

    @classmethod
    def of(cls, spec: ModelSpec, places: Places) -> Self:
        """Return the model with its place, or with those of its candidates."""
        more: dict[str, Any] = {
            "dtype": "Float32",
            "initialization": spec.initialization,
            "quantization": spec.quantization,
        }
        if spec.dtype == "Float32":
            more["frozen_dtype"] = "Float32"
        if spec.source:
            return cls.resolve(spec.source, places, **more)
        if spec.towers:
            more |= {"modalities": [tower.modality for tower in spec.towers], "tower_sources": spec.sources}
            return cls(source="", path="", tower_paths=[locate(one, places) for one in spec.sources], **more)
        paths = [locate(source, places) for source in spec.sources]
        return cls(source="", path="", candidates=spec.sources, candidate_paths=paths, **more)

    @property
    def towers(self) -> list[Tower]:
        """The encoders, where there are several."""
        parts = (self.modalities or (), self.tower_sources or (), self.tower_paths or ())
        return [Tower(*tower) for tower in zip(*parts, strict=True)]

    @property
    def described(self) -> str:
        """Where the base lies, or each of the towers, for people."""
        return self.source or ", ".join(self.tower_sources or [])

    @property
    def bases(self) -> list[tuple[str, str, str]]:
        """Field below spec, source and path of the base, of each candidate where none is chosen yet, or of each tower."""
        if self.towers:
            return [(f"model.towers[{index}].source", one.source, one.path) for index, one in enumerate(self.towers)]
        if self.source or not self.candidates:
            return [("model.source", self.source, self.path)]
        places = zip(self.candidates, self.candidate_paths or [], strict=True)
        return [(f"model.candidates[{index}].source", *place) for index, place in enumerate(places)]

    def chosen(self, source: str) -> Self:
        """Return it with one of its candidates as its base."""
        path = dict(zip(self.candidates or [], self.candidate_paths or [], strict=True))[source]
        return self.model_copy(update={"source": source, "path": path})


def _as_first_written() -> list[tuple[Column, str]]:
    """Return all columns in the order of the first release: an operator compares the text of job.json with its own."""
    first = list(FIRST_FIELDS["data"]["train"]["columns"])
    return sorted(columns(), key=lambda found: first.index(found[0].name) if found[0].name in first else len(first))


class Columns(Columned, columns=_as_first_written(), named=True):
    """Names of the columns, all given."""

    def renamed(self, own: ColumnsSpec | None) -> Self:
        """Return the names with those that a manifest gives."""
        given = {name: getattr(own, name) for name in type(own).model_fields} if own else {}
        update = {name: value for name, value in given.items() if value is not None}
        # Who names the one column of a held-out part does not want the several of the training data.
        return self.model_copy(update={"values": None} | update if "value" in update else update)


class Dataset(Location):
    """Data with a source of its own."""

    columns: Columns
    label_names: Annotated[dict[str, list[str]] | None, EXECUTION] = None
    """What the whole numbers of columns stand for, as the data set says: filled in by the trainer that has brought it."""


class HeldOut(Model):
    """Data with a source of its own, or a share of the training data."""

    dataset: Dataset | None = None
    fraction: float | None = None

    @classmethod
    def resolve(cls, spec: HeldOutSpec, columns: Columns, places: Places) -> Self:
        """Return it with its place; its columns are those of the training data where nothing else is said."""
        own = spec.source and Dataset.resolve(spec.source, places, columns=columns.renamed(spec.columns))
        return cls(fraction=spec.fraction, dataset=own or None)


class ResolvedData(Model):
    """Training, validation and test data."""

    train: Dataset
    validation: HeldOut
    test: HeldOut | None = None
    on_error: Annotated[Literal["Fail", "Skip"], Since(2)] = "Fail"
    show_values: Annotated[bool, EXECUTION] = False
    """Whether messages outside of a pod's log may quote rows."""
    anchor: Annotated[Dataset | None, EXECUTION] = None
    """Rows that the base is good at, of evidence.forgetting."""

    @classmethod
    def resolve(cls, spec: DataSpec, places: Places, anchor: AnchorSpec | None = None) -> Self:
        """Return the data with its places and the names of its columns."""
        names = Columns().renamed(spec.train.columns)
        return cls(
            train=Dataset.resolve(spec.train.source, places, columns=names),
            validation=HeldOut.resolve(spec.validation, names, places),
            test=spec.test and HeldOut.resolve(spec.test, names, places),
            on_error=spec.on_error or "Fail",
            show_values=bool(spec.show_values),
            anchor=anchor and Dataset.resolve(anchor.source, places, columns=names.renamed(anchor.columns)),
        )

    @property
    def sources(self) -> Iterator[tuple[str, Dataset]]:
        """What has a source of its own, each with its field below spec."""
        yield "data.train.source", self.train
        for name, part in (("validation", self.validation), ("test", self.test)):
            if part and part.dataset:
                yield f"data.{name}.source", part.dataset
        if self.anchor:
            yield "evidence.forgetting.anchor.source", self.anchor

    def moved(self, move: Callable[[str, Dataset], Dataset]) -> Self:
        """Return it with what `move` makes of everything that has a source of its own, by its name: train, validation, test, anchor."""
        found: dict[str, Any] = {"train": move("train", self.train)}
        for name in ("validation", "test"):
            if (part := getattr(self, name)) and part.dataset:
                found[name] = part.model_copy(update={"dataset": move(name, part.dataset)})
        if self.anchor:
            found["anchor"] = move("anchor", self.anchor)
        return self.model_copy(update=found)


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
    rates: Annotated[Literal["Given", "Auto"], Since(2)] = "Given"
    """Auto: head and backbone are what a range test starts from."""

    @classmethod
    def resolve(cls, spec: LearningRateSpec, usual_backbone: float) -> Self:
        """Return the rates; `usual_backbone` is that of the backbone where nobody says another."""
        return cls(
            head=spec.head,
            backbone=spec.backbone or usual_backbone,
            layer_decay=spec.layer_decay,
            schedule=spec.schedule,
            scope=spec.scope,
            warmup_ratio=usual_warmup_ratio(spec.schedule) if spec.warmup_ratio is None else spec.warmup_ratio,
            rewarm_steps=spec.rewarm_steps or 0,
            rates=spec.rates or "Given",
        )


class ResolvedStrategy(OneOf, kinds=STRATEGIES, noun="strategy"):
    """The strategy, with its options; GradualUnfreezing's have either blocksPerPhase or groups, and either epochsPerPhase or
    stepsPerPhase.
    """

    learning_rate: LearningRate
    solver: Annotated[Literal["Gradient", "Closed"] | None, Since(2)] = None

    @classmethod
    def resolve(cls, spec: StrategySpec, adapter: AdapterSpec | None) -> Self:
        """Return the strategy with its options, which say what nobody else has said."""
        strategy = spec.completed()
        usual = usual_backbone_rate(spec.type, spec.learning_rate.head, adapter)
        options = {strategy.kind.field: strategy.options} if strategy.options else {}
        rate = LearningRate.resolve(spec.learning_rate, usual)
        if spec.type == "Auto":
            rate = rate.model_copy(update={"scope": "Phase"})
        return cls(type=spec.type, learning_rate=rate, solver=spec.solver, **options)


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

    @classmethod
    def resolve(cls, spec: DistributionSpec, *, rendezvous_host: str, rendezvous_port: int) -> Self:
        """Return the workers, and how they find one another."""
        auto = spec.num_proc_per_node == "Auto"
        workers = max(1, spec.accelerators_per_node) if auto else int(spec.num_proc_per_node)
        deep_speed = spec.deep_speed or DeepSpeedSpec()
        return cls(
            num_nodes=spec.num_nodes,
            num_proc_per_node=workers,
            accelerators_per_node=spec.accelerators_per_node,
            threads_per_proc=max(1, spec.cpus_per_node // workers) if spec.cpus_per_node else None,
            engine=spec.engine,
            zero_stage=deep_speed.zero_stage if spec.engine == "DeepSpeed" else 0,
            offload=deep_speed.offload,
            rendezvous_host=rendezvous_host,
            rendezvous_port=rendezvous_port,
        )

    @property
    def world_size(self) -> int:
        """Workers of the whole job."""
        return self.num_nodes * self.num_proc_per_node


class ResolvedOutput(Location):
    """The run's folder and the kinds of export."""

    source: Annotated[str, EXECUTION]
    """The manifest's text, for reports."""
    export: Annotated[list[ExportKind], EXECUTION]
    prediction_inputs: Annotated[Inputs, EXECUTION] = "Omit"
    """Whether predictions have the texts, or paths of files, beside them."""


class ResolvedCache(Location):
    """Where what frozen blocks make of samples is kept beyond the job."""

    max_bytes: int = Field(ge=0)
    """Of the whole folder."""
    scratch_bytes: int | None = Field(default=None, ge=0)
    """What each pod may write to its node's disk, where memory does not do; None where nobody says."""


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

    @classmethod
    def resolve(cls, spec: TrackingSpec | None, namespace: str) -> Self:
        """Return the trackers; what nobody gives a name to is called like the namespace."""
        if spec is None:
            return cls()
        mlflow, wandb = spec.mlflow, spec.wandb
        return cls(
            tensor_board=spec.tensor_board is not None,
            mlflow=mlflow and ResolvedMlflow(uri=mlflow.uri, experiment=mlflow.experiment or namespace),
            wandb=wandb and ResolvedWandb(project=wandb.project or namespace, entity=wandb.entity, mode=wandb.mode),
        )


class Semantics(Model):
    """What a run does where no field of the spec says it. A run keeps to its end what it began with."""

    pooling: Annotated[Literal["OfBase", "Architecture"], Before("Architecture")] = "OfBase"
    """What a text's head reads where pooling is Auto. OfBase: what the base was trained to give, if its folder says so.
    Architecture: what the library's own class reads, often the first token."""
    dropout: Annotated[Literal["WhereTrained", "Everywhere"], Before("Everywhere")] = "WhereTrained"
    """Where dropout is on in training. WhereTrained: from the lowest block that trains upwards. Everywhere: in frozen blocks
    too."""
    features: Annotated[Literal["Cached", "Computed"], Before("Computed")] = "Cached"
    """Where the outputs of frozen blocks come from. Cached: computed once for each sample, where that is exact and pays.
    Computed: again in each step, no cache."""
    pictures: Annotated[Literal["AsShown", "AsConverted"], Before("AsConverted")] = "AsShown"
    """How a picture's file becomes 8 bits a channel. AsShown: as a viewer shows it (data/pictures.py). AsConverted: by
    Pillow's conversion alone, without orientation, range and ground."""
    positions: Annotated[Literal["Counted", "Guessed"], Before("Guessed")] = "Counted"
    """How many tokens a model takes. Counted: the rows of its table of positions, without those that its family spares.
    Guessed: from config.json and the tokenizer's limit."""
    held_out: Annotated[Literal["Proportional", "OfEachLabel"], Before("OfEachLabel")] = "Proportional"
    """What data.*.fraction holds out. Proportional: that share of all samples, of as many labels as it has room for.
    OfEachLabel: at least a sample of each label, however many there are."""
    experts: Annotated[Literal["Adapted", "PassedOver"], Before("PassedOver")] = "Adapted"
    """What all-linear means in a mixture of experts. Adapted: the experts too, and what cannot reach them is refused, as is a
    quantisation that leaves them as they are. PassedOver: the layers that there are beside them."""
    clips: Annotated[Literal["OfData", "OfModel"], Before("OfModel")] = "OfData"
    """How much of a clip a model hears that makes all of them equally long, where maxSeconds does not say it. OfData: as many whole
    seconds as the longest training clip has. OfModel: what it takes, 30 seconds, most of which may be silence."""
    rates: Annotated[Literal["Guarded", "Kept"], Before("Kept")] = "Guarded"
    """What becomes of learning rates that destroy the model. Guarded: the training goes back with lower ones, or fails. Kept:
    nothing."""
    order: Annotated[Literal["Permutation"], Before("Permutation")] = "Permutation"
    """Order of the samples. Permutation: of all of them, another one in each epoch (data/order.py)."""


class ResolvedStage(Model):
    """An intermediate task, with all that it has of the job."""

    name: str
    keep: Literal["Always", "IfHelps"] = "Always"
    task: TaskSpec
    data: ResolvedData
    strategy: ResolvedStrategy
    adapter: AdapterSpec | None = None
    training: TrainingSpec

    @classmethod
    def of(cls, stage: StageSpec, spec: FineTuneJobSpec, places: Places) -> Self:
        """Return a stage of a job, with what it has of it."""
        same = stage.task is None or stage.task.type == spec.task.type
        task = (spec.task if same else TaskSpec(type=stage.task.type)).completed()  # type: ignore[union-attr]
        if (options := task.options) and getattr(options, "class_weights_by_label", None):  # of other labels
            task = task.model_copy(
                update={task.kind.field: options.model_copy(update={"class_weights_by_label": None})}
            )
        metric = task_type(task.type).metric(spec.training.metric if same else None, task.options).name
        asked = {name: getattr(stage.training, name, None) for name in ("epochs", "batch_size")}
        own = {name: value for name, value in asked.items() if value is not None}
        names = Columns().renamed(stage.data.train.named)
        data = ResolvedData(
            train=Dataset.resolve(stage.data.train.source, places, columns=names),
            validation=HeldOut.resolve(stage.held_out, names, places),
            on_error=spec.data.on_error or "Fail",
            show_values=bool(spec.data.show_values),
        )
        return cls(
            name=stage.name,
            keep=stage.keep,
            task=task,
            data=data,
            strategy=ResolvedStrategy.resolve(stage.whole_strategy, stage.whole_adapter),
            adapter=stage.whole_adapter,
            training=spec.training.model_copy(update={"metric": metric, **own}),
        )


class ResolvedGuard(Model):
    """A guard of evidence.forgetting that changes how weights are trained: it is a part of what is learned."""

    type: Literal["Replay", "Hold"]
    share: float | None = None
    """Of Replay, rows of the anchor for each training sample."""
    budget: float | None = None
    """Of Hold, what may be lost."""
    anchor: str | None = None
    """Where the rows lie that are replayed, or that say how strongly weights are held."""
    columns: ColumnsSpec | None = None
    """Names of their columns, where they are not those of the training data."""

    @classmethod
    def of(cls, spec: EvidenceSpec | None, task: str) -> Self | None:
        """Return the guard of a task's job, None where it changes nothing of the training."""
        forgetting = spec.forgetting if spec else None
        if forgetting is None or forgetting.guard not in TRAINING_GUARDS:
            return None
        rows: dict[str, Any] = {}
        if forgetting.anchor:
            rows = {"anchor": forgetting.anchor.source, "columns": forgetting.anchor.columns}
        if forgetting.guard == "Hold":
            return cls(type="Hold", budget=forgetting.budget, **rows)
        share = forgetting.replay.share if forgetting.replay else None
        return cls(type="Replay", share=share or usual_replay_share(task), **rows)


class ResolvedBudget(Model):
    """What a job may take, all its runs together."""

    unit: Literal["hours", "accelerator hours", "money"]
    limit: float
    """In that unit."""
    per_hour: float | None = None
    """What an hour of the job takes of it; None where no price is known, 0 of accelerator hours without accelerators."""
    currency: str = ""
    """Of money, where it is known."""

    @classmethod
    def of(
        cls, spec: BudgetSpec | None, place: ResolvedDistribution, price: float | None, currency: str
    ) -> Self | None:
        """Return the budget of a job in which an accelerator costs so much an hour."""
        if spec is None:
            return None
        accelerators = place.num_nodes * place.accelerators_per_node
        if spec.hours is not None:
            return cls(unit="hours", limit=spec.hours, per_hour=1.0)
        if spec.accelerator_hours is not None:
            return cls(unit="accelerator hours", limit=spec.accelerator_hours, per_hour=float(accelerators))
        each, known = (spec.price_per_hour, "") if spec.price_per_hour else (price, currency)
        assert spec.amount is not None  # a rule of the API
        per_hour = None if each is None else each * (accelerators or place.num_nodes)
        return cls(unit="money", limit=spec.amount, per_hour=per_hour, currency=known)


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
    evidence: Annotated[EvidenceSpec | None, EXECUTION] = None
    guard: Annotated[ResolvedGuard | None, Since(2)] = None
    """What is done in the training itself about what the base would forget."""
    stages: Annotated[list[ResolvedStage] | None, Since(2)] = None
    """Intermediate tasks that come before all that stands beside them."""
    budget: Annotated[ResolvedBudget | None, EXECUTION, Since(2)] = None
    """What it may take; a trainer that ignored it would take more."""
    cache: Annotated[ResolvedCache | None, EXECUTION] = None
    """None where nothing outlives the job."""
    hang_timeout_seconds: Annotated[int | None, EXECUTION] = None
    """Silence of the workers that counts as a hang; without it the agent derives one."""
    semantics: Annotated[Semantics, HABIT] = Semantics()
    """No field of the spec: what this version does. Runs that an earlier one began have its values."""

    def with_base(self, source: str) -> Self:
        """Return the job with one of its candidates as its base."""
        return self.model_copy(update={"model": self.model.chosen(source)})

    def with_data(self, move: Callable[[str, Dataset], Dataset]) -> Self:
        """Return the job with its data, and that of its stages, moved as of `ResolvedData.moved`."""
        stages = [one.model_copy(update={"data": one.data.moved(move)}) for one in self.stages or ()]
        return self.model_copy(update={"data": self.data.moved(move), "stages": stages or None})

    def with_rates(self, head: float, backbone: float) -> Self:
        """Return the job with peak learning rates that it has chosen, as if they had been given."""
        update = {"head": head, "backbone": backbone, "rates": "Given"}
        rate = self.strategy.learning_rate.model_copy(update=update)
        return self.model_copy(update={"strategy": self.strategy.model_copy(update={"learning_rate": rate})})

    def with_solver(self, solver: Literal["Gradient", "Closed"]) -> Self:
        """Return the job with a solver that it has chosen, as if it had been given."""
        return self.model_copy(update={"strategy": self.strategy.model_copy(update={"solver": solver})})

    def of_tower(self, index: int) -> Self:
        """Return the job with one of its towers as its base."""
        tower = self.model.towers[index]
        update = {
            "source": tower.source,
            "path": tower.path,
            "modalities": None,
            "tower_sources": None,
            "tower_paths": None,
        }
        return self.model_copy(update={"model": self.model.model_copy(update=update)})

    @property
    def forgetting(self) -> ForgettingSpec | None:
        """What is measured and done about what the base knew; None for nothing."""
        return self.evidence.forgetting if self.evidence else None

    @property
    def metric(self) -> Metric:
        """What chooses the best checkpoint."""
        return task_type(self.task.type).metric(self.training.metric, self.task.options)

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


def _derived(job: ResolvedJob) -> Fields:
    """Return what is completed for each field that nobody sets, beside the defaults of the models."""
    strategy, rate = job.strategy, job.strategy.learning_rate
    chosen = (
        {"source": job.model.source} if job.model.candidates else {}
    )  # the same run, before and after it has chosen
    return {
        "model": {"dtype": "Float32"} | chosen,
        "training": {"groupByLength": False},
        "strategy": {
            **({} if strategy.type == "Auto" else {"solver": "Gradient"}),
            "gradualUnfreezing": {"blocksPerPhase": BLOCKS_PER_PHASE, "epochsPerPhase": EPOCHS_PER_PHASE},
            "auto": {"rungs": list(DEFAULT_RUNGS)},
            "learningRate": {
                "backbone": usual_backbone_rate(strategy.type, rate.head, job.adapter),
                "warmupRatio": usual_warmup_ratio(rate.schedule),
                "rewarmSteps": 0,
            },
        },
    }


def schema_version(job: Model) -> int:
    """Return the schemaVersion that a trainer must know for what is set in a job, see `Since`."""
    found = [1]
    for name, default, versions in _marked(type(job)):
        value = getattr(job, name)
        if value == default:
            continue
        found += versions
        parts = value if isinstance(value, list) else [value]
        found += [schema_version(part) for part in parts if isinstance(part, Model)]
    return max(found)


@cache
def _marked(kind: type[Model]) -> list[tuple[str, Any, list[int]]]:
    """Return name, default and marked versions of each field: the operator asks for each new job."""
    return [
        (
            name,
            field.get_default(call_default_factory=True),
            [mark.schema_version for mark in field.metadata if isinstance(mark, Since)],
        )
        for name, field in kind.model_fields.items()
    ]
