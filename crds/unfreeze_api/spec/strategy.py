"""How much of the model may change, when, and at which learning rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from unfreeze_api.grammar.model import Model, Rule, Since
from unfreeze_api.grammar.one_of import OneOf, Variant
from unfreeze_api.spec.adapter import AdapterSpec

Schedule = Literal["Constant", "Linear", "Cosine", "OneCycle", "SlantedTriangular"]
BlockName = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z]+(\.[0-9]+)?$")]
Blocks = Annotated[
    list[BlockName], Field(min_length=1, max_length=128, json_schema_extra={"x-kubernetes-list-type": "set"})
]


class PlateauSpec(Model):
    """Ends a phase that no longer improves. Evaluations are those of training.evaluate, on training.metric."""

    patience: int = Field(default=3, ge=1, le=1000)
    """Evaluations without improvement after which the phase ends."""
    min_delta: float = Field(default=0.0, ge=0, le=100)
    """By how much the metric must improve to count."""


class PartialFineTuningSpec(Model):
    """Options of PartialFineTuning."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.lastBlocks) != has(self.blocks)", "set exactly one of lastBlocks and blocks"),
    )

    last_blocks: int | None = Field(default=None, ge=1, le=1024)
    """How many blocks below the head are trained."""
    blocks: Blocks | None = None
    """Names of the blocks that are trained beside the head, like layer.11; `unfreeze phases` lists them."""


class LinearProbeThenFineTuneSpec(Model):
    """Options of LinearProbeThenFineTune (Kumar et al. 2022, arXiv 2202.10054)."""

    probe_epochs: float = Field(default=1, gt=0, le=10000)
    """Epochs of training.epochs in which the head alone is trained, before everything is."""
    until_plateau: PlateauSpec | None = None
    """Ends the probe when it no longer improves, after probeEpochs at the latest. Default: the probe takes
    probeEpochs."""


BLOCKS_PER_PHASE, EPOCHS_PER_PHASE = 1, 1.0


class GradualUnfreezingSpec(Model):
    """Options of GradualUnfreezing (Howard and Ruder 2018, arXiv 1801.06146)."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.blocksPerPhase) || !has(self.groups)", "set one of blocksPerPhase and groups, not both"),
        Rule(
            "!has(self.epochsPerPhase) || !has(self.stepsPerPhase)",
            "set one of epochsPerPhase and stepsPerPhase, not both",
        ),
    )

    order: Literal["FromTop", "ChainThaw"] = "FromTop"
    """FromTop: the head, then one more group of blocks from the top in each phase. ChainThaw: the head alone, each
    group alone from the bottom, then everything (Felbo et al. 2017, arXiv 1708.00524)."""
    blocks_per_phase: int | None = Field(default=None, ge=1, le=1024)
    """How many blocks make a group, from the top. Default: 1."""
    groups: list[Blocks] | None = Field(default=None, min_length=1, max_length=64)
    """Groups of blocks by name, from the top, in place of blocksPerPhase. Blocks in no group stay frozen, but for
    ChainThaw's last phase. Default: groups of blocksPerPhase."""
    epochs_per_phase: float | None = Field(default=None, gt=0, le=10000)
    """Epochs of each phase, fractions allowed; the last phase takes what is left of training.epochs. Default: 1."""
    steps_per_phase: int | None = Field(default=None, ge=1, le=1000000000)
    """Optimizer steps of each phase. Default: epochsPerPhase says how long they are."""
    until_plateau: PlateauSpec | None = None
    """Ends each phase but the last when it no longer improves, after epochsPerPhase or stepsPerPhase at the latest.
    Default: phases run to their end."""

    def completed(self) -> Self:
        """Return it with either blocksPerPhase or groups, and either epochsPerPhase or stepsPerPhase."""
        return self.model_copy(
            update={
                "blocks_per_phase": None if self.groups else self.blocks_per_phase or BLOCKS_PER_PHASE,
                "epochs_per_phase": None if self.steps_per_phase else self.epochs_per_phase or EPOCHS_PER_PHASE,
            }
        )


RungType = Literal["FeatureExtraction", "PartialFineTuning", "FullFineTuning"]
PROBE_EPOCHS, PROBE_PATIENCE = 5, 3
"""Of Auto's rung FeatureExtraction: times training.epochs at most, and evaluations without improvement that end it."""
UPPER_EPOCHS, WHOLE_EPOCHS = 0.5, 0.75
"""Times training.epochs, of Auto's rung PartialFineTuning of the upper half, which is on the way to another one, and of FullFineTuning after it."""


class AutoRungSpec(Model):
    """A rung: how much of the model it trains."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.type == 'PartialFineTuning' || (!has(self.lastBlocks) && !has(self.blocks))",
            "lastBlocks and blocks are about type PartialFineTuning: remove them, or choose that type",
        ),
        Rule("!has(self.lastBlocks) || !has(self.blocks)", "set one of lastBlocks and blocks, not both"),
    )

    type: RungType
    """FeatureExtraction trains the head alone, PartialFineTuning the head and some blocks, FullFineTuning everything."""
    last_blocks: int | None = Field(default=None, ge=1, le=1024)
    """Of PartialFineTuning, how many blocks below the head are trained. Default: the upper half of them."""
    blocks: Annotated[list[BlockName], Field(min_length=1, max_length=128)] | None = None
    """Of PartialFineTuning, names of the blocks that are trained beside the head; `unfreeze phases` lists them."""
    epochs: float | None = Field(default=None, gt=0, le=10000)
    """Passes over the training data of this rung. Default: training.epochs; of FeatureExtraction, whose steps are cheap, five
    times as many, which end after 3 evaluations without improvement, or none where the head is solved (strategy.solver); half as
    many of a PartialFineTuning that does not say which blocks it trains and is not the last rung, and three quarters of a
    FullFineTuning after it."""


DEFAULT_RUNGS: tuple[AutoRungSpec, ...] = tuple(
    AutoRungSpec(type=kind) for kind in ("FeatureExtraction", "PartialFineTuning", "FullFineTuning")
)


class AutoBudgetSpec(Model):
    """What the rungs may take."""

    seconds: int = Field(ge=1, le=1000000000)
    """Time of all rungs together, their evaluations included. A rung that would not end within it is not begun, and one that is
    under way when it is over ends there, by a step more at most and its evaluation. Time between pods does not count."""


class AutoSpec(Model):
    """Options of Auto."""

    rungs: Annotated[list[AutoRungSpec] | None, Since(2)] = Field(default=None, min_length=1, max_length=8)
    """What is tried, from the cheapest to the dearest. Each rung starts from the best weights of those before it, and has a course
    of the learning rate of its own. Default: FeatureExtraction, PartialFineTuning of the upper half of the blocks for half of
    training.epochs, FullFineTuning for three quarters of them."""
    target: float | None = Field(default=None, ge=-1000000000, le=1000000000)
    """Value of training.metric that is good enough: once a rung reaches it, none follows. Default: none."""
    min_gain: float | None = Field(default=None, ge=0, le=100)
    """By how much training.metric must improve for more of the model to be changed. Default: 0.01 (of a metric that is better when
    it is lower, 1 % of its value), or one standard error on the validation samples if that is smaller."""
    budget: AutoBudgetSpec | None = None
    """What the rungs may take. Default: what they take."""

    def completed(self) -> Self:
        """Return it with its rungs."""
        return self.model_copy(update={"rungs": self.rungs or list(DEFAULT_RUNGS)})


class LearningRateSpec(Model):
    """Learning rates of head and backbone, and their course."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.backbone) || self.backbone <= self.head",
            "backbone must not be above head: pretrained layers take smaller steps than the new head",
            ".backbone",
        ),
        Rule(
            "!has(self.rewarmSteps) || self.scope == 'Job'",
            "with scope Phase every phase has a warm-up of its own, of warmupRatio: remove rewarmSteps",
            ".rewarmSteps",
        ),
    )

    rates: Annotated[Literal["Given", "Auto"] | None, Since(2)] = None
    """Given: head and backbone are as they stand here. Auto: a range test on the first training batches chooses them, in at most
    5 % of the planned steps or 20; head and backbone are then what it starts from, and what counts where it sees nothing.
    Default: Given; of strategy Auto, where head and backbone have their defaults, Auto."""
    head: float = Field(default=1e-3, gt=0, le=10)
    """Peak learning rate of the new head (and of an adapter and BitFit's biases unless backbone is given)."""
    backbone: float | None = Field(default=None, gt=0, le=10)
    """Peak learning rate of the pretrained block next to the head. Default: head / 10, in the range of 10 to 100 times
    below the head that transfer learning uses; with BitFit or an adapter: head. Beside an adapter with baseWeights
    ByStrategy it is the rate of the own weights, and the adapter's is head."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor from each block to the next one below: 0.8 gives the embeddings of a deep model far smaller steps than
    its top. 0.385 is 1 / 2.6, ULMFiT's; MAE and BEiT use 0.65 to 0.75, ELECTRA 0.8 to 0.9."""
    schedule: Schedule = "Cosine"
    """Course of the learning rate after the warm-up. Constant: kept. Linear, Cosine: down to 0. OneCycle: cosine up from
    1/25 and down to 1/250000 of the peak (Smith 2018, arXiv 1803.09820, as torch's OneCycleLR). SlantedTriangular:
    linear up from 1/32 and down to it (Howard and Ruder 2018, arXiv 1801.06146)."""
    scope: Literal["Job", "Phase"] = "Job"
    """Job: one course over all phases. Phase: warm-up and course start again in each phase, as they always do with Auto."""
    warmup_ratio: float | None = Field(default=None, ge=0, lt=1)
    """Share of the steps over which the learning rate rises. Default: 0.06; for OneCycle 0.3, for SlantedTriangular
    0.1."""
    rewarm_steps: int | None = Field(default=None, ge=1, le=1000000)
    """Steps over which the learning rate rises from 0 again at the begin of each phase after the first, on its
    course: fresh blocks start without moments. Default: none."""

    @property
    def usual(self) -> bool:
        """Whether neither head nor backbone is another rate than the default."""
        return self.backbone is None and self.head == type(self).model_fields["head"].default


@dataclass(frozen=True, slots=True)
class StrategyKind(Variant):
    """A strategy, and what adapters have to know of it."""

    no_adapter: str = ""
    """Why it takes no adapter, as a part of a message; empty where it takes one."""
    some_blocks: bool = False
    """It trains some blocks and not the others, in some phase at least."""
    head_alone: bool = False
    """What it is about is to train the head before anything else, or alone."""


STRATEGIES: tuple[StrategyKind, ...] = (
    StrategyKind(
        "FeatureExtraction",
        "trains the new head alone",
        no_adapter="trains the head alone, an adapter would never be trained",
        head_alone=True,
    ),
    StrategyKind(
        "PartialFineTuning",
        "head and some blocks",
        PartialFineTuningSpec,
        some_blocks=True,
        needs="partialFineTuning.lastBlocks or partialFineTuning.blocks",
    ),
    StrategyKind("FullFineTuning", "everything"),
    StrategyKind(
        "LinearProbeThenFineTune", "the head first, then everything", LinearProbeThenFineTuneSpec, head_alone=True
    ),
    StrategyKind("GradualUnfreezing", "the head, then block after block", GradualUnfreezingSpec, some_blocks=True),
    StrategyKind(
        "BitFit",
        "the head, and of every other block biases and norms (Ben Zaken et al. 2021, arXiv 2106.10199)",
        no_adapter="says what trains in place of the weights, and so does an adapter",
    ),
    StrategyKind(
        "Auto",
        "as much as the validation data says, rung after rung from the head to everything",
        AutoSpec,
        some_blocks=True,
        head_alone=True,
    ),
)


SOLVED = "has(self.solver) && self.solver == 'Closed'"
"""Of a strategy, in CEL: the head that trains alone is solved."""
_PROBES = [kind.name for kind in STRATEGIES if kind.head_alone]


class StrategySpec(OneOf, kinds=STRATEGIES, noun="strategy"):
    """How much of the model may change, and when."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!({SOLVED}) || self.type in {_PROBES}",
            f"solver Closed finds a head that trains alone: choose type {', '.join(_PROBES[:-1])} or {_PROBES[-1]}, or set solver to"
            " Gradient",
            ".solver",
        ),
        Rule(
            f"!({SOLVED}) || !has(self.linearProbeThenFineTune) || (double(self.linearProbeThenFineTune.probeEpochs) == 1.0"
            " && !has(self.linearProbeThenFineTune.untilPlateau))",
            "a probe that is solved has neither epochs nor a plateau: remove probeEpochs and untilPlateau, or set solver to Gradient",
            ".solver",
        ),
        Rule(
            f"!({SOLVED}) || !has(self.auto) || !has(self.auto.rungs)"
            " || (self.auto.rungs[0].type == 'FeatureExtraction' && !has(self.auto.rungs[0].epochs))",
            "solver Closed is about the first rung, which must be a FeatureExtraction without epochs: make it the first of auto.rungs"
            " and remove its epochs, or set solver to Gradient",
            ".solver",
        ),
        Rule(
            "self.type != 'FeatureExtraction' || !has(self.learningRate) || !has(self.learningRate.backbone)",
            "FeatureExtraction keeps the backbone frozen: remove learningRate.backbone, or choose another type",
            ".learningRate",
        ),
        Rule(
            "!has(self.learningRate) || !has(self.learningRate.rewarmSteps)"
            " || self.type in ['LinearProbeThenFineTune', 'GradualUnfreezing']",
            "rewarmSteps is about the phases after the first, and this type has one phase: remove it, or choose"
            " LinearProbeThenFineTune or GradualUnfreezing",
            ".learningRate",
        ),
    )

    learning_rate: LearningRateSpec = LearningRateSpec()
    """Learning rates of head and backbone."""
    solver: Annotated[Literal["Gradient", "Closed"] | None, Since(2)] = None
    """How a head is found while it trains alone: in FeatureExtraction, the probe of LinearProbeThenFineTune, the first rung of Auto.
    Gradient: by steps, as everything else. Closed: by L-BFGS to convergence on what the frozen base gives of each training sample,
    computed once; 5-fold cross-validation on the training data chooses the strength of its L2 regularisation. Epochs, learning rate
    and weight decay do not count there; the head must be one linear layer. Default: Gradient; of Auto Closed where it is possible."""

    def completed(self) -> Self:
        """Return it with the options of its type, complete."""
        whole = super().completed()
        gradual = whole.of(GradualUnfreezingSpec)
        auto = whole.of(AutoSpec)
        options = gradual.completed() if gradual else auto.completed() if auto else None
        return whole.model_copy(update={whole.kind.field: options}) if options else whole


_WARMUP = {"OneCycle": 0.3, "SlantedTriangular": 0.1}
"""pct_start of torch's OneCycleLR; cut_frac of Howard and Ruder 2018, section 3.2."""


def usual_warmup_ratio(schedule: Schedule) -> float:
    """Return the warmupRatio of a schedule where nobody gives one."""
    return _WARMUP.get(schedule, 0.06)


def usual_backbone_rate(strategy: str, head: float, adapter: AdapterSpec | None) -> float:
    """Return the learning rate of the backbone where nobody gives one."""
    like_head = strategy == "BitFit" or (adapter is not None and adapter.base_weights == "Frozen")
    return head if like_head else head / 10
