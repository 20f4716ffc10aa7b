"""Stages: intermediate tasks that the base is trained on before the job's own. What a stage leaves out it has of the job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from unfreeze_api.adapters.lora import LoraSpec
from unfreeze_api.grammar.model import Model, Rule, Since, schema_rules
from unfreeze_api.grammar.one_of import OneOf
from unfreeze_api.grammar.words import every
from unfreeze_api.spec.adapter import AdapterSpec
from unfreeze_api.spec.data import ColumnsSpec, HeldOutSpec
from unfreeze_api.spec.source import DataSource, ModelSource
from unfreeze_api.spec.strategy import STRATEGIES, LearningRateSpec, StrategySpec
from unfreeze_api.tasks import TASKS, columns
from unfreeze_api.tasks.base import AUDIO, TaskType

MAX_STAGES = 4
_TYPES = tuple(task.name for task in TASKS)
_KINDS = ("FeatureExtraction", "PartialFineTuning", "FullFineTuning", "BitFit")


class StageTaskSpec(Model):
    """What a stage teaches."""

    type: Literal[_TYPES]  # type: ignore[valid-type]
    """As task.type. Its options are the job's where the type is, else their defaults."""


_NAMES = [column.name for column, _ in columns() if not column.many]
_COLUMNS = Rule(f"self.all(name, name in {_NAMES})", f"the keys are those of data.train.columns: {', '.join(_NAMES)}")


class StageTrainSpec(Model):
    """What a stage learns from."""

    source: DataSource
    """A table or a folder, as of data.train.source."""
    columns: Annotated[
        dict[str, Annotated[str, Field(min_length=1, max_length=256)]] | None,
        Field(max_length=32, json_schema_extra=schema_rules(_COLUMNS)),
    ] = None
    """Names of the columns, when they are not the default ones, by the keys of data.train.columns. Default: those of the task."""

    @property
    def named(self) -> ColumnsSpec | None:
        """The columns, as a job has them."""
        return ColumnsSpec.model_validate(self.columns) if self.columns else None


class StageHeldOutSpec(Model):
    """What the checkpoints of a stage are compared on."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.source) != has(self.fraction)", "set exactly one of source and fraction"),
    )

    source: DataSource | None = None
    """A file or folder of its own, with the columns of train. Default: none, fraction says how much is held out."""
    fraction: float | None = Field(default=None, gt=0, lt=1)
    """Share of the training data that is held out. Default: none, source says where it lies."""


class StageDataSpec(Model):
    """The data of a stage."""

    train: StageTrainSpec
    """What it learns from."""
    validation: StageHeldOutSpec = StageHeldOutSpec(fraction=0.1)
    """What its checkpoints are compared on. Default: a tenth of its training data."""


class StageLearningRateSpec(Model):
    """Learning rates of a stage."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.backbone) || self.backbone <= self.head",
            "backbone must not be above head: pretrained layers take smaller steps than the new head",
            ".backbone",
        ),
    )

    head: float = Field(default=1e-3, gt=0, le=10)
    """Peak learning rate of the new head, and of an adapter."""
    backbone: float | None = Field(default=None, gt=0, le=10)
    """That of the pretrained block next to the head. Default: head / 10; with an adapter or BitFit head."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor from each block to the next one below."""


class StageStrategySpec(OneOf, kinds=tuple(kind for kind in STRATEGIES if kind.name in _KINDS), noun="strategy"):
    """How much of the model a stage changes."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.type != 'FeatureExtraction' || !has(self.learningRate) || !has(self.learningRate.backbone)",
            "FeatureExtraction keeps the backbone frozen: remove learningRate.backbone, or choose another type",
            ".learningRate",
        ),
    )

    learning_rate: StageLearningRateSpec = StageLearningRateSpec()
    """Learning rates of head and backbone."""


class StageLoraSpec(Model):
    """LoRA of a stage."""

    r: int = Field(default=16, ge=1, le=1024)
    """Rank of the update."""
    lora_alpha: int = Field(default=32, ge=1, le=4096)
    """Scale: the update is multiplied by loraAlpha / r."""


class StageAdapterSpec(Model):
    """What a stage trains in place of the model's own weights."""

    type: Literal["LoRA"]
    """The kind: LoRA, which is folded into the weights at the end of the stage."""
    lora: StageLoraSpec = StageLoraSpec()
    """Its options; the others have the defaults of adapter.lora."""


class StageTrainingSpec(Model):
    """The course of a stage."""

    epochs: float | None = Field(default=None, gt=0, le=10000)
    """Passes over the training data of the stage. Default: the job's."""
    batch_size: int | None = Field(default=None, ge=1, le=1000000)
    """Samples of a step, of all workers together. Default: the job's."""


class StageSpec(Model):
    """An intermediate task."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.adapter) || !has(self.strategy) || self.strategy.type == 'FullFineTuning'",
            "the adapter of a stage trains in place of all weights: choose strategy.type FullFineTuning, or remove adapter",
            ".adapter",
        ),
    )

    name: str = Field(min_length=1, max_length=32, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    """Name of the stage, and of its folder below `stages` in the run's: lower-case letters, digits and '-'. Needed, without a default."""
    keep: Literal["Always", "IfHelps"] = "Always"
    """Whether what comes after it starts from its weights. IfHelps: where the model tells more of the job's own training rows than
    without the stage, with probability 0.9 (by neighbours, of Alignment and ImageText by recallAt1, of Captioning by loss); else the stage
    is dropped. The decision is in status.decisions."""
    task: StageTaskSpec | None = None
    """What it teaches; the head for that is new, and thrown away after the stage, but of what joins models. Default: the job's task."""
    text_encoder: Annotated[ModelSource | None, Since(2)] = None
    """Where an encoder lies that reads the texts of an Alignment before Captioning, as of model.source. Default: none."""
    data: StageDataSpec
    """What it learns from."""
    strategy: StageStrategySpec | None = None
    """How much of the model it changes. Default: FullFineTuning."""
    adapter: StageAdapterSpec | None = None
    """LoRA in place of changed weights. Default: none."""
    training: StageTrainingSpec | None = None
    """Epochs and batch size; all else is as in the job's training. Default: the job's."""

    @property
    def whole_strategy(self) -> StrategySpec:
        """The strategy with the rest of its fields, as a job has it."""
        given = self.strategy or StageStrategySpec(type="FullFineTuning")
        options = {given.kind.field: given.options} if given.options else {}
        rates = LearningRateSpec.model_validate(given.learning_rate.model_dump(exclude_none=True))
        return StrategySpec(type=given.type, learning_rate=rates, **options)

    @property
    def whole_adapter(self) -> AdapterSpec | None:
        """The adapter with the rest of its fields, as a job has it."""
        if self.adapter is None:
            return None
        options = LoraSpec.model_validate(self.adapter.lora.model_dump())
        return AdapterSpec.model_validate({"type": self.adapter.type, "lora": options})

    @property
    def held_out(self) -> HeldOutSpec:
        """The validation data, as a job has it."""
        given = self.data.validation
        return HeldOutSpec(source=given.source, fraction=given.fraction)


_TWICE = Rule(
    "self.all(one, self.exists_one(other, other.name == one.name))",
    "every stage needs a name of its own, which is that of its folder: rename the one that stands twice",
)

Stages = Annotated[list[StageSpec], Field(min_length=1, max_length=MAX_STAGES, json_schema_extra=schema_rules(_TWICE))]


def _readers() -> Iterator[list[str]]:
    """Yield the tasks that read texts, those that hear, and those that see."""
    for reads in ("Texts", "Sound", "Pictures"):
        yield [task.name for task in TASKS if not task.joins and _reads(task) == reads]


def _reads(task: TaskType) -> str:
    return "Texts" if task.reads_text else "Sound" if AUDIO in task.reads else "Pictures"


def stage_rules() -> Iterator[Rule]:
    """Yield the rules about jobs with stages that follow from what tasks read."""
    joined = [task for task in TASKS if task.joins]
    names = [task.name for task in joined]
    alike = " && ".join(f"((one.task.type in {names}) == (self.task.type in {names}))" for names in _readers())
    before = _before(joined)
    yield Rule(
        f"!has(self.stages) || self.stages.all(one, !has(one.task) || one.task.type == self.task.type || ({before})"
        f" || (!(one.task.type in {names}) && {alike}))",
        "every stage trains the same model, so its task must read what the job's does, texts, pictures or sound, and before"
        f" {every(joined)} be the same one, or an Alignment before Captioning: choose another task.type of the stage",
        ".stages",
    )
    yield Rule(
        f"!has(self.stages) || self.stages.all(one, has(one.textEncoder) == ({before})"
        " && (!has(one.textEncoder) || (one.keep == 'Always' && !has(one.adapter))))",
        "a stage of Alignment before Captioning, and no other one, names a textEncoder, since a language model reads no texts; it has keep"
        " Always and no adapter: correct these",
        ".stages",
    )
    yield Rule(
        "!has(self.stages) || self.stages.all(one, !has(one.strategy) || one.strategy.type != 'FeatureExtraction'"
        f" || (self.task.type in {names} && !has(one.textEncoder)))",
        f"FeatureExtraction changes nothing that a stage hands on, but heads of {every(joined)} to a stage or job of the same task: choose"
        " another strategy.type of the stage",
        ".stages",
    )
    others = [task for task in TASKS if not task.rankable and not task.joins]
    yield Rule(
        "!has(self.stages) || self.stages.all(one, one.keep == 'Always')"
        f" || !(self.task.type in {[task.name for task in others]})",
        f"whether a stage helps is told by labels, numbers or what belongs together of the job's own rows, which {every(others)} have not:"
        " set keep to Always",
        ".stages",
    )


def _before(joined: Sequence[TaskType]) -> str:
    """Return an expression for whether stage `one` trains the encoder of a writer beside one of texts, before the writer learns."""
    writers = [task.name for task in joined if task.describes]
    aligned = [task.name for task in joined if task.towers and not task.writes]
    return f"has(one.task) && one.task.type in {aligned} && self.task.type in {writers}"


STAGE_RULES = (
    *stage_rules(),
    Rule(
        "!has(self.stages) || (!has(self.model.candidates) && self.model.initialization == 'Pretrained'"
        " && !has(self.model.quantization))",
        "stages hand on the whole weights of a pretrained base: name it in model.source or model.towers, set model.initialization to"
        " Pretrained and remove model.quantization",
        ".stages",
    ),
    Rule(
        "!has(self.stages) || self.distribution.engine == 'DDP'",
        "stages take one model after the other into the job's workers, which is proven with DDP alone: choose distribution.engine"
        " DDP, or remove stages",
        ".stages",
    ),
    Rule(
        "!has(self.stages) || !has(self.evidence) || !has(self.evidence.forgetting)",
        "of a job with stages it is not measured yet what the base loses: remove evidence.forgetting, or stages",
        ".stages",
    ),
    Rule(
        "!has(self.stages) || self.stages.all(one, !has(one.training) || !has(one.training.batchSize)"
        " || one.training.batchSize >= self.distribution.numNodes"
        " * (type(self.distribution.numProcPerNode) == int ? self.distribution.numProcPerNode : 1))",
        "batchSize of a stage counts the samples of all workers together and must give each worker at least one",
        ".stages",
    ),
)
