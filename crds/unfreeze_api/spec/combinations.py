"""What cannot go together: made from what adapters, strategies, engines and tasks say of themselves.

Each message names both sides and the way out. Where a value is meant, and not a kind, the rule is written by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from unfreeze_api.adapters import ADAPTERS
from unfreeze_api.adapters.base import AdapterKind
from unfreeze_api.adapters.peft import SHARED
from unfreeze_api.grammar.model import Rule
from unfreeze_api.grammar.words import Named, either, every
from unfreeze_api.spec.adapter import PROMPTS, UNMERGEABLE
from unfreeze_api.spec.distribution import ENGINES, Engine
from unfreeze_api.spec.evidence import TRAINING_GUARDS
from unfreeze_api.spec.strategy import STRATEGIES, StrategyKind
from unfreeze_api.tasks import TASKS
from unfreeze_api.tasks.base import Metric, TaskType

_NONE = "!has(self.adapter) || "
CLOSED = "Closed"
VARIATIONS = ("randAugment", "autoAugment", "augMix", "randomErasing", "mixUp", "cutMix")
"""What varies training images beside imageClassification.augmentation."""


def adapter_rules(
    adapters: Sequence[AdapterKind] = ADAPTERS,
    strategies: Sequence[StrategyKind] = STRATEGIES,
    engines: Sequence[Engine] = ENGINES,
    tasks: Sequence[TaskType] = TASKS,
) -> Iterator[Rule]:
    """Yield the rules about adapters that follow from the kinds that there are."""
    takers = [kind for kind in strategies if not kind.no_adapter and not kind.some_blocks]
    for kind in strategies:
        if kind.no_adapter:
            yield Rule(
                f"{_NONE}self.strategy.type != '{kind.name}'",
                f"{kind.name} {kind.no_adapter}: remove adapter, or choose strategy.type {either(takers)}, which train every"
                " adapter and the head",
                ".adapter",
            )
    for why, kinds in _by(adapters, "all_blocks"):
        parts = [kind for kind in strategies if kind.some_blocks]
        others = [kind for kind in adapters if not kind.all_blocks]
        yield Rule(
            f"{_NONE}!{_among('self.adapter.type', kinds)} || !{_among('self.strategy.type', parts)}",
            f"{_each(kinds)} {why}, and {every(parts)} train some blocks without the others: choose strategy.type"
            f" {either(takers)}, or adapter.type {either(others)}",
            ".adapter",
        )
    for why, kinds in _by(adapters, "whole_gradients"):
        yield _whole_gradients(why, kinds, [kind for kind in adapters if not kind.whole_gradients], engines)
    prompts = [kind for kind in adapters if kind.before_input]
    others = [kind for kind in adapters if not kind.before_input]
    readers = [task for task in tasks if task.reads_text]
    wordless = [
        task for task in tasks if not (task.reads_text or task.joins)
    ]  # what has towers takes no adapter at all
    yield Rule(
        f"{_NONE}!{_among('self.adapter.type', prompts)} || !{_among('self.task.type', wordless)}",
        f"{_each(prompts)} stands before the words of a text, and there are none in {every(wordless)}: choose adapter.type"
        f" {either(others)}, or task.type {either(readers)}",
        ".adapter",
    )
    both = [task for task in tasks if task.joins and not task.towers]
    yield Rule(
        f"{_NONE}!{_among('self.adapter.type', prompts)} || !{_among('self.task.type', both)}",
        f"{_each(prompts)} stands before the words of a text, and PEFT puts none into a model that sees too, as {every(both)} trains:"
        f" choose adapter.type {either(others)}",
        ".adapter",
    )
    yield Rule(
        f"{_NONE}self.adapter.type != 'Bottleneck' || !{_among('self.task.type', both)}",
        f"Bottleneck finds one place in each layer, and {every(both)} has layers of two towers side by side: choose adapter.type"
        f" {either([kind for kind in others if kind.name != 'Bottleneck'])}",
        ".adapter",
    )


def _whole_gradients(why: str, kinds: list[AdapterKind], others: list[AdapterKind], engines: Sequence[Engine]) -> Rule:
    whole = [engine.whole_gradients for engine in engines if engine.whole_gradients]
    shared = [engine for engine in engines if not engine.replicates]
    return Rule(
        f"{_NONE}!{_among('self.adapter.type', kinds)} || " + " || ".join(f"({rule})" for rule, _ in whole),
        f"{_each(kinds)} {why}, and {every(shared)} hold gradients in shares: choose {', '.join(way for _, way in whole)}, or"
        f" adapter.type {either(others)}",
        ".adapter",
    )


def _by(kinds: Sequence[AdapterKind], capability: str) -> Iterator[tuple[str, list[AdapterKind]]]:
    """Yield each reason that kinds give for a capability, with those that give it."""
    for why in dict.fromkeys(getattr(kind, capability) for kind in kinds):
        if why:
            yield why, [kind for kind in kinds if getattr(kind, capability) == why]


def _among(field: str, kinds: Iterable[Named]) -> str:
    return f"({field} in {[kind.name for kind in kinds]})"


def _each(kinds: Sequence[Named]) -> str:
    return f"each of {every(kinds)}" if len(kinds) > 1 else kinds[0].name


def metric_rules() -> Iterator[Rule]:
    """Yield the rules about which metrics a task is measured by, with one label for each sample, with several, with scores."""
    labelled = [task for task in TASKS if task.multi_label]
    member = "has(self.task.{0}) && has(self.task.{0}.labels) && self.task.{0}.labels == 'Multi'"
    several = " || ".join(f"({member.format(task.member)})" for task in labelled)
    scored = [task for task in TASKS if task.of_scores]
    scores = " || ".join(
        f"(has(self.task.{task.member}) && self.task.{task.member}.annotation == 'Scores')" for task in scored
    )
    for metrics in dict.fromkeys(task.metrics for task in TASKS):
        kinds = [task for task in TASKS if task.metrics == metrics]
        if any(task in scored for task in kinds):
            yield _metric_rule(kinds, metrics, unless=scores, about=" without scores")
            continue
        choice = any(task in labelled for task in kinds)
        yield _metric_rule(kinds, metrics, unless=several if choice else "", about=" with one label" * choice)
    for metrics in dict.fromkeys(task.of_scores for task in scored):
        kinds = [task for task in scored if task.of_scores == metrics]
        yield _metric_rule(kinds, metrics, unless=f"!({scores})", about=" with annotation Scores")
    for metrics in dict.fromkeys(task.multi_label for task in labelled):
        kinds = [task for task in labelled if task.multi_label == metrics]
        yield _metric_rule(kinds, metrics, unless=f"!({several})", about=" with labels Multi")


def _metric_rule(kinds: Sequence[TaskType], metrics: Sequence[Metric], *, unless: str, about: str) -> Rule:
    return Rule(
        f"!has(self.training.metric) || !{_among('self.task.type', kinds)} || "
        + f"({unless}) || " * bool(unless)
        + f"self.training.metric in {[metric.name for metric in metrics]}",
        f"{every(kinds)}{about} {'are' if len(kinds) > 1 else 'is'} measured by other metrics: choose {either(metrics)}",
        ".training.metric",
    )


def head_rules() -> Iterator[Rule]:
    """Yield the rules about strategies that train the head alone, for tasks that have none."""
    probes, others = ([kind for kind in STRATEGIES if bool(kind.head_alone) == alone] for alone in (True, False))
    for why in dict.fromkeys(task.no_head for task in TASKS if task.no_head):
        kinds = [task for task in TASKS if task.no_head == why]
        yield Rule(
            f"!{_among('self.task.type', kinds)} || !{_among('self.strategy.type', probes)}",
            f"{every(kinds)} {why}, which {every(probes)} would train alone: choose strategy.type {either(others)}, with or"
            " without an adapter",
            ".strategy",
        )


def generation_rules() -> Iterator[Rule]:
    """Yield the rule about tasks whose models make no texts."""
    writers, others = ([task for task in TASKS if task.writes is writes] for writes in (True, False))
    yield Rule(
        f"!has(self.training.evaluate.generate) || !{_among('self.task.type', others)}",
        f"generate has a model say texts by itself, as those of {every(writers)} do, and {every(others)} learn other things: remove it",
        ".training.evaluate.generate",
    )


def solver_rules() -> Iterator[Rule]:
    """Yield the rules about what the solver of a head cannot do."""
    gradient = f"!has(self.strategy.solver) || self.strategy.solver != '{CLOSED}' || "
    takers, others = ([task for task in TASKS if task.rankable is fits] for fits in (True, False))
    yield Rule(
        f"{gradient}{_among('self.task.type', takers)}",
        f"solver {CLOSED} needs one label or number for each sample, or several of a fixed number, and {every(others)} learn other"
        f" things: set strategy.solver to Gradient, or choose task.type {either(takers)}",
        ".strategy.solver",
    )
    yield Rule(
        f"{gradient}!has(self.adapter)",
        f"solver {CLOSED} finds one linear layer, and no adapter: remove adapter, or set strategy.solver to Gradient",
        ".strategy.solver",
    )
    focal = " && ".join(
        f"(!has(self.task.{task.member}) || !has(self.task.{task.member}.focalLoss))"
        for task in takers
        if task.options and "focal_loss" in task.options.model_fields
    )
    yield Rule(
        f"{gradient}({focal})",
        f"the focal loss is not convex, so that solver {CLOSED} would find no single best head: remove focalLoss, or set"
        " strategy.solver to Gradient",
        ".strategy.solver",
    )
    varied = " && ".join(f"!has(self.task.imageClassification.{name})" for name in VARIATIONS)
    yield Rule(
        f"{gradient}self.task.type != 'ImageClassification' || (has(self.task.imageClassification)"
        f" && self.task.imageClassification.augmentation == 'None' && {varied})",
        f"solver {CLOSED} reads each image once, and augmentation varies it in each epoch: set imageClassification.augmentation to None"
        f" without {', '.join(VARIATIONS)}, or set strategy.solver to Gradient",
        ".strategy.solver",
    )


def candidate_rules() -> Iterator[Rule]:
    """Yield the rule about tasks whose bases cannot be ranked."""
    others = [task for task in TASKS if not task.rankable]
    if others:
        ranked = [task for task in TASKS if task.rankable]
        yield Rule(
            f"!has(self.model.candidates) || !{_among('self.task.type', others)}",
            f"candidates are ranked by how well one vector of each sample tells its label or number, and {every(others)}"
            f" {'have' if len(others) > 1 else 'has'} none: name one base in model.source ({every(ranked)} can be ranked)",
            ".model.candidates",
        )


def tower_rules() -> Iterator[Rule]:
    """Yield the rules about tasks that have several models."""
    takers = [task for task in TASKS if task.towers]
    writers, others = ([task for task in takers if task.writes is writes] for writes in (True, False))
    yield Rule(
        f"!{_among('self.task.type', takers)} || has(self.model.towers)",
        f"{every(takers)} {_join(takers)} models of several modalities: list them in model.towers, in place of source",
        ".model",
    )
    yield Rule(
        f"!has(self.model.towers) || {_among('self.task.type', takers)}",
        f"only {every(takers)} {_join(takers)} several models: name one base in model.source, or choose task.type {either(takers)}",
        ".model.towers",
    )
    yield Rule(
        f"!has(self.model.towers) || !{_among('self.task.type', others)} || (!has(self.adapter)"
        " && (!has(self.stages) || self.stages.all(one, !has(one.adapter))))",
        "the heads of towers are small, and their encoders take no adapter yet: remove adapter, of stages too",
        ".adapter",
    )
    yield from writer_rules(writers)


def _join(kinds: Sequence[Named]) -> str:
    return "join" if len(kinds) > 1 else "joins"


def writer_rules(writers: Sequence[TaskType]) -> Iterator[Rule]:
    """Yield the rules about tasks whose tower of texts is a language model."""
    other = f"!{_among('self.task.type', writers)} || "
    yield Rule(
        f"!has(self.model.towers) || {other}(self.model.towers.size() == 2"
        " && self.model.towers.exists_one(one, one.modality == 'Text'))",
        f"{every(writers)} joins one encoder, of Image or Audio, and one language model, of Text: name these two",
        ".model.towers",
    )
    yield Rule(
        f"{_NONE}{other}self.adapter.type == 'LoRA'",
        f"{every(writers)} puts LoRA alone into its language model: choose adapter.type LoRA, or remove adapter",
        ".adapter",
    )
    yield Rule(
        f"{other}!has(self.output.exports) || self.output.exports.all(e, e != 'Adapter')",
        f"{every(writers)} has no export of an adapter alone: export Merged",
        ".output.exports",
    )
    proven = [engine for engine in ENGINES if engine.name in ("DDP", "FSDP")]
    yield Rule(
        f"{other}{_among('self.distribution.engine', proven)}",
        f"{every(writers)} is proven with {every(proven)} alone: choose distribution.engine {either(proven)}",
        ".distribution.engine",
    )


def baseline_rules() -> Iterator[Rule]:
    """Yield the rule about which tasks there is a classical model for."""
    takers, others = ([task for task in TASKS if bool(task.classical) == has] for has in (True, False))
    yield Rule(
        f"!has(self.evidence) || !has(self.evidence.baseline) || {_among('self.task.type', takers)}",
        f"there is a classical model for {every(takers)}, and none for {every(others)}: remove evidence.baseline",
        ".evidence.baseline",
    )


def scratch_rules() -> Iterator[Rule]:
    """Yield the rules about what random weights can be compared with."""
    given = "!has(self.evidence) || !has(self.evidence.scratch) || "
    takers, others = ([task for task in TASKS if task.one_answer is one] for one in (True, False))
    yield Rule(
        f"{given}{_among('self.task.type', takers)}",
        f"models are compared sample by sample, and those of {every(others)} have no answer of one sample: remove"
        " evidence.scratch",
        ".evidence.scratch",
    )
    whole = [engine for engine in ENGINES if engine.name == "DDP"]
    yield Rule(
        f"{given}{_among('self.distribution.engine', whole)}",
        f"evidence.scratch takes a second model into the job's workers, which is proven with {every(whole)} alone: choose that, or"
        " remove evidence.scratch",
        ".evidence.scratch",
    )
    yield Rule(
        f"{given}self.model.initialization == 'Pretrained'",
        "the job itself starts from random weights: set model.initialization to Pretrained, or remove evidence.scratch",
        ".evidence.scratch",
    )


def forgetting_rules() -> Iterator[Rule]:
    """Yield the rules about what can be compared with the base."""
    given = "!has(self.evidence) || !has(self.evidence.forgetting) || "
    takers = [engine for engine in ENGINES if engine.name != "DeepSpeed"]
    yield Rule(
        f"{given}{_among('self.distribution.engine', takers)}",
        "evidence.forgetting runs the base before the first step, when DeepSpeed cannot compute yet: choose distribution.engine"
        f" {either(takers)}, or remove evidence.forgetting",
        ".evidence.forgetting",
    )
    writers = [task for task in TASKS if task.describes]
    yield Rule(
        f"{given}!{_among('self.task.type', writers)}",
        f"what the language model of {every(writers)} loses is not measured yet: remove evidence.forgetting",
        ".evidence.forgetting",
    )
    both = [task for task in TASKS if task.joins and not task.describes]
    guard = f"{given}!has(self.evidence.forgetting.guard) || "
    yield Rule(
        f"{guard}!(self.evidence.forgetting.guard in {list(TRAINING_GUARDS)}) || !{_among('self.task.type', both)}",
        f"{' and '.join(TRAINING_GUARDS)} train what one base makes of a row, and {every(both)} have several encoders: set guard to Stop,"
        " Interpolate or Report",
        ".evidence.forgetting.guard",
    )
    yield Rule(
        f"{given}self.model.initialization == 'Pretrained'",
        "random weights know nothing that could be forgotten: set model.initialization to Pretrained, or remove evidence.forgetting",
        ".evidence.forgetting",
    )
    interpolates = f"{given}!has(self.evidence.forgetting.guard) || self.evidence.forgetting.guard != 'Interpolate' || "
    yield Rule(
        f"{interpolates}!has(self.adapter) || (self.adapter.type == 'LoRA' && (!has(self.adapter.lora)"
        " || (!self.adapter.lora.useDora && !(self.adapter.lora.initLoraWeights in ['Orthogonal', 'PiSSA', 'OLoRA', 'LoftQ']))))",
        "weights are interpolated along a line from the base to the result, and of adapters only a LoRA without useDora and with"
        " initLoraWeights Default or Gaussian lies on one: set guard to Stop or Report, or choose another adapter",
        ".evidence.forgetting.guard",
    )
    holds = f"{given}!has(self.evidence.forgetting.guard) || self.evidence.forgetting.guard != 'Hold' || "
    yield Rule(
        f"{holds}!has(self.adapter) || !(self.adapter.type in {list(PROMPTS)})",
        f"Hold pulls weights to where they began, and each of {every([kind for kind in ADAPTERS if kind.before_input])} begins at random"
        " and not as the base: set guard to Replay, Stop or Report, or choose another adapter",
        ".evidence.forgetting.guard",
    )


_DIVIDING = [engine for engine in ENGINES if engine.divides_parameters]

ADAPTER_RULES = (
    *adapter_rules(),
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
        "!has(self.adapter) || self.adapter.baseWeights == 'Frozen' || !has(self.strategy.learningRate)"
        " || !has(self.strategy.learningRate.rates) || self.strategy.learningRate.rates != 'Auto'",
        "with baseWeights ByStrategy an adapter has a rate of its own beside those of head and backbone, and Auto looks for these two"
        " alone: give the rates, or set baseWeights to Frozen",
        ".strategy.learningRate.rates",
    ),
    Rule(
        f"{_NONE}!has(self.adapter.peft) || !(self.adapter.peft.method in {list(SHARED)})"
        f" || !{_among('self.distribution.engine', _DIVIDING)}",
        f"the layers of {', '.join(SHARED)} share parameters, which {every(_DIVIDING)} cannot divide: choose another"
        " adapter.peft.method, or distribution.engine"
        f" {either([engine for engine in ENGINES if not engine.divides_parameters])}",
        ".adapter",
    ),
    Rule(
        f"{_NONE}!(self.adapter.type in {list(PROMPTS)}) || self.task.type != 'Seq2SeqLM' || self.distribution.engine != 'FSDP'",
        "FSDP divides the embeddings that encoder and decoder share once for each of them where a prompt stands before the words: choose"
        " distribution.engine DDP or DeepSpeed, or another adapter",
        ".adapter",
    ),
    Rule(
        f"{_NONE}!(self.adapter.type in {list(PROMPTS)}) || !has(self.task.causalLm) || !self.task.causalLm.packing",
        f"each of {every([kind for kind in ADAPTERS if kind.before_input])} stands before a row, and of packed samples only the first"
        " would see it: set causalLm.packing to false, or choose another adapter.type",
        ".adapter",
    ),
)

METRIC_RULES = tuple(metric_rules())
HEAD_RULES = (*head_rules(), *solver_rules(), *generation_rules())
CANDIDATE_RULES = tuple(candidate_rules())
TOWER_RULES = tuple(tower_rules())
EVIDENCE_RULES = (*baseline_rules(), *scratch_rules(), *forgetting_rules())

EXPORT_RULES = (
    Rule(
        "!has(self.output.exports) || has(self.adapter) || self.output.exports.all(e, e == 'Model')",
        "Adapter and Merged need an adapter: add spec.adapter, or export Model",
        ".output.exports",
    ),
    Rule(
        f"{_NONE}!has(self.output.exports) || self.output.exports.all(e, e != 'Model')",
        "with an adapter export Adapter, Merged or both: Merged is the whole model",
        ".output.exports",
    ),
    Rule(
        f"{_NONE}!has(self.output.exports) || self.adapter.baseWeights == 'Frozen'"
        " || self.output.exports.all(e, e == 'Merged')",
        "with baseWeights ByStrategy the adapter is half of what was trained: export Merged, which has all of it",
        ".output.exports",
    ),
    Rule(
        f"{_NONE}!has(self.output.exports) || !(self.adapter.type in {list(UNMERGEABLE)})"
        " || self.output.exports.all(e, e == 'Adapter')",
        f"{', '.join(UNMERGEABLE)} cannot be folded into the base's weights: export Adapter",
        ".output.exports",
    ),
)
