"""The whole of job.json."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic_core import to_json

from unfreeze_api.contracts.first_fields import Fields, without_new_defaults
from unfreeze_api.contracts.resolved.data import Dataset, ResolvedData
from unfreeze_api.contracts.resolved.execution import (
    ResolvedBudget,
    ResolvedCache,
    ResolvedDistribution,
    ResolvedOutput,
    ResolvedTracking,
)
from unfreeze_api.contracts.resolved.judgement import ResolvedGuard, ResolvedStage
from unfreeze_api.contracts.resolved.model import ResolvedModel
from unfreeze_api.contracts.resolved.strategy import ResolvedStrategy
from unfreeze_api.fingerprint import fingerprint, first_fingerprint
from unfreeze_api.grammar.model import EXECUTION, HABIT, Before, Model, Since
from unfreeze_api.spec.adapter import AdapterSpec
from unfreeze_api.spec.data import TaskSpec
from unfreeze_api.spec.evidence import EvidenceSpec, ForgettingSpec
from unfreeze_api.spec.strategy import (
    BLOCKS_PER_PHASE,
    DEFAULT_RUNGS,
    EPOCHS_PER_PHASE,
    usual_backbone_rate,
    usual_warmup_ratio,
)
from unfreeze_api.spec.training import TrainingSpec
from unfreeze_api.tasks import task_type
from unfreeze_api.tasks.base import Metric

if TYPE_CHECKING:
    pass


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
    heads: Annotated[Literal["Whole", "Split"], Before("Split")] = "Whole"
    """What of a head of several layers (RoBERTa's) trains as one beside an adapter of PEFT's. Whole: all of it. Split: nothing, where the
    head has no parameters but its layers': these belong to the block below, with its learning rate."""
    clips: Annotated[Literal["OfData", "OfModel"], Before("OfModel")] = "OfData"
    """How much of a clip a model hears that makes all of them equally long, where maxSeconds does not say it. OfData: as many whole
    seconds as the longest training clip has. OfModel: what it takes, 30 seconds, most of which may be silence."""
    labels: Annotated[Literal["Named", "Numbered"], Before("Numbered")] = "Named"
    """What labels are called that stand as numbers in files which name them, as `datasets` writes Parquet and Arrow. Named: by these
    names. Numbered: by their numbers, but for tags of words and the configs of a hub's data sets."""
    rates: Annotated[Literal["Guarded", "Kept"], Before("Kept")] = "Guarded"
    """What becomes of learning rates that destroy the model. Guarded: the training goes back with lower ones, or fails. Kept:
    nothing."""
    blocks: Annotated[Literal["ByUse", "AsDeclared"], Before("AsDeclared")] = "ByUse"
    """Which block has what a model declares elsewhere than it uses it. ByUse: a table's norm behind the layers is of the embeddings, a
    pooler before them lies above. AsDeclared: the block next to its place."""
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
        tower, staged = self.model.towers[index], self.model.stage_tower_paths
        update = {
            "source": tower.source,
            "path": tower.path,
            "stage_path": staged[index] if staged else None,
            "stage_tower_paths": None,
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
