"""FineTuneJob `unfreeze.dev/v1alpha1`: what a user may write. The CRD's schema is generated from these models.

Field names are those of the ecosystem: Kubeflow's runPolicy and numProcPerNode, PEFT's own words for adapters.
A field is here only if it works; a union is a `type` plus a member of the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from unfreeze_api.grammar import former
from unfreeze_api.grammar.model import Model, Rule
from unfreeze_api.spec.adapter import AdapterSpec
from unfreeze_api.spec.combinations import (
    ADAPTER_RULES,
    CANDIDATE_RULES,
    EVIDENCE_RULES,
    EXPORT_RULES,
    HEAD_RULES,
    METRIC_RULES,
    TOWER_RULES,
)
from unfreeze_api.spec.data import DataSpec, TaskSpec
from unfreeze_api.spec.distribution import ACCELERATORS, DistributionSpec
from unfreeze_api.spec.evidence import AnchorSpec, EvidenceSpec
from unfreeze_api.spec.feature_cache import FeatureCacheSpec
from unfreeze_api.spec.model import ModelSpec
from unfreeze_api.spec.output import ExportKind, Inputs, OutputSpec
from unfreeze_api.spec.quantization import QUANTIZATION_RULES
from unfreeze_api.spec.run_policy import RunPolicySpec
from unfreeze_api.spec.sources import SourcesSpec
from unfreeze_api.spec.stages import STAGE_RULES, Stages
from unfreeze_api.spec.strategy import StrategySpec
from unfreeze_api.spec.template import TemplateSpec
from unfreeze_api.spec.tracking import TrackingSpec
from unfreeze_api.spec.training import TrainingSpec
from unfreeze_api.tasks import task_type
from unfreeze_api.tasks.base import Metric


def _apart(path: str, *optional: str) -> Rule:
    """Say that a source and output.destination do not contain each other."""
    source = f"self.{path}"
    given = "".join(f"!has(self.{member}) || " for member in optional)
    return Rule(
        f"{given}[{source} + '/'].all(one, [self.output.destination + '/'].all(other,"
        " !one.startsWith(other) && !other.startsWith(one)))",
        f"{path} and output.destination must not contain each other, the run would write among what it reads: choose an"
        " output.destination beside it",
        ".output.destination",
    )


def _all_apart(path: str) -> Rule:
    """Say that neither of several sources contains output.destination, nor lies in it."""
    return Rule(
        f"!has(self.{path}) || self.{path}.all(one,"
        " !((one.source + '/').startsWith(self.output.destination + '/'))"
        " && !((self.output.destination + '/').startsWith(one.source + '/')))",
        f"{path} and output.destination must not contain each other, the run would write among what it reads: choose"
        " an output.destination beside them",
        ".output.destination",
    )


_APART_RULES = (
    _apart("model.source", "model.source"),
    *(_all_apart(f"model.{member}") for member in ("candidates", "towers")),
    _apart("data.train.source"),
    _apart("data.validation.source", "data.validation.source"),
    _apart("data.test.source", "data.test", "data.test.source"),
    _apart("evidence.forgetting.anchor.source", "evidence", "evidence.forgetting", "evidence.forgetting.anchor"),
    Rule(
        "!has(self.stages) || self.stages.all(one, [one.data.train.source,"
        " has(one.textEncoder) ? one.textEncoder : one.data.train.source,"
        " has(one.data.validation.source) ? one.data.validation.source : one.data.train.source].all(source,"
        " !((source + '/').startsWith(self.output.destination + '/'))"
        " && !((self.output.destination + '/').startsWith(source + '/'))))",
        "what a stage reads and output.destination must not contain each other, the run would write among it: choose"
        " an output.destination beside it",
        ".output.destination",
    ),
)


_LIMITS = "self.distribution.resourcesPerNode.limits"
_BUDGET_RULES = (
    Rule(
        "!has(self.runPolicy.budget) || (!has(self.runPolicy.budget.acceleratorHours) && (!has(self.runPolicy.budget.amount)"
        f" || has(self.runPolicy.budget.pricePerHour))) || (has({_LIMITS}) && {list(ACCELERATORS)}.exists(name,"
        f" name in {_LIMITS} && !string({_LIMITS}[name]).matches('^0*$')))",
        "the job asks for no accelerators in distribution.resourcesPerNode.limits, which acceleratorHours and tables of prices are"
        " about: ask for some, or set budget.hours, or with amount pricePerHour, what a pod costs an hour",
        ".runPolicy.budget",
    ),
)

_WHILE_SUSPENDED = "oldSelf.runPolicy.suspend && self.runPolicy.suspend"


FIXED = ("model", "task", "data", "strategy", "adapter", "training", "output", "stages")
"""Fields that cannot be changed, suspended or not."""
_FIXED_BELOW = {"distribution": ("engine", "deepSpeed"), "runPolicy": ("backoffLimit",)}
_OF_WHAT_IS_FIXED = re.compile(
    rf"self\.({'|'.join((*FIXED, *(rf'{above}.{name}' for above, names in _FIXED_BELOW.items() for name in names)))})\b"
)


def about_fixed(rule: str) -> bool:
    """Whether a CEL rule over a spec is about nothing that could be changed."""
    return "elf." not in _OF_WHAT_IS_FIXED.sub("", rule)


def fixed_rules() -> Iterator[tuple[former.Path, Rule]]:
    """Yield the rules about what cannot be changed, suspended or not, each with the path below spec at which it stands."""
    way_out = "cannot be changed: delete and recreate the job, or use another name"
    for field in FIXED:
        yield from former.fixed(FineTuneJobSpec, [field], f"{field} {way_out}")
    engine = f"distribution.engine and distribution.deepSpeed {way_out}"
    yield from former.fixed(DistributionSpec, _FIXED_BELOW["distribution"], engine, ("distribution",))
    limit = f"runPolicy.backoffLimit {way_out}"
    yield from former.fixed(RunPolicySpec, _FIXED_BELOW["runPolicy"], limit, ("runPolicy",))


class FineTuneJobSpec(Model):
    """What is trained, on what, and how much of the model may change."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *ADAPTER_RULES,
        *EXPORT_RULES,
        *METRIC_RULES,
        *HEAD_RULES,
        *CANDIDATE_RULES,
        *TOWER_RULES,
        *EVIDENCE_RULES,
        *QUANTIZATION_RULES,
        *STAGE_RULES,
        *_APART_RULES,
        *_BUDGET_RULES,
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
            "self.strategy.type != 'LinearProbeThenFineTune'"
            " || (has(self.strategy.solver) && self.strategy.solver == 'Closed') || (has(self.strategy.linearProbeThenFineTune)"
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
        Rule(
            "!has(self.stages) || !has(self.runPolicy.budget)",
            "a budget is about one training, and each stage is one of its own: remove stages, or set runPolicy.activeDeadlineSeconds in"
            " place of budget",
            ".runPolicy.budget",
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
            "(has(self.evidence) == has(oldSelf.evidence) && (!has(self.evidence) || self.evidence == oldSelf.evidence))"
            f" || ({_WHILE_SUSPENDED})",
            "evidence can only be changed while runPolicy.suspend is true: suspend the job first, then change it, then resume",
            ".evidence",
        ),
        Rule(
            "(has(self.sources) == has(oldSelf.sources) && (!has(self.sources) || self.sources == oldSelf.sources))"
            f" || ({_WHILE_SUSPENDED})",
            "sources can only be changed while runPolicy.suspend is true: suspend the job first, then change it, then resume",
            ".sources",
        ),
    )

    model: ModelSpec
    """The pretrained model that the job starts from."""
    task: TaskSpec
    """What the model learns to do."""
    data: DataSpec
    """Training, validation and test data."""
    stages: Stages | None = None
    """Intermediate tasks that the base is trained on first, one after the other, at most 4: their heads are thrown away, and the job
    itself starts from the weights of the last one that is kept. Each has a run folder below the job's. Default: none."""
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
    evidence: EvidenceSpec | None = None
    """What the finished model is compared with on the same validation samples, to say whether the training was worth it. Each
    comparison is a decision in status.decisions, report.json and report.html; where the other model is not worse, that is said
    before all else. Default: none."""
    sources: SourcesSpec | None = None
    """How models and data that lie at a hub are brought. Default: without credentials."""
    run_policy: RunPolicySpec = RunPolicySpec()
    """The life of the job in the cluster."""
    template: TemplateSpec = TemplateSpec()
    """What the pods get besides."""

    @property
    def exports(self) -> list[ExportKind]:
        """What is written of the finished model: output.exports, or what suits the adapter."""
        if self.adapter is None:
            return list(self.output.exports or ["Model"])
        if task_type(self.task.type).describes:  # an adapter alone would lack projector and encoder
            return ["Merged"]
        return list(self.output.exports or ["Adapter" if self.adapter.base_weights == "Frozen" else "Merged"])

    @property
    def prediction_inputs(self) -> Inputs:
        """Whether predictions have the texts, or paths of files, beside them."""
        return (self.output.predictions and self.output.predictions.inputs) or "Omit"

    @property
    def anchor(self) -> AnchorSpec | None:
        """Rows that the base is good at, where the job names some."""
        forgetting = self.evidence and self.evidence.forgetting
        return forgetting.anchor if forgetting else None

    @property
    def feature_cache(self) -> FeatureCacheSpec | None:
        """Where features of frozen blocks are kept for later jobs."""
        return self.sources.feature_cache if self.sources else None

    @property
    def metric(self) -> Metric:
        """What chooses the best checkpoint: training.metric, or the first of the task's."""
        return task_type(self.task.type).metric(self.training.metric, self.task.options)
