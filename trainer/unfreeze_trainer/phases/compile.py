"""Strategies to phases: the one pure function that knows what a strategy is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from unfreeze_api.adapters.adalora import AdaLoraSpec
from unfreeze_api.contracts.resolved import LearningRate, ResolvedJob
from unfreeze_api.spec.strategy import (
    PROBE_EPOCHS,
    PROBE_PATIENCE,
    UPPER_EPOCHS,
    WHOLE_EPOCHS,
    AutoRungSpec,
    AutoSpec,
    GradualUnfreezingSpec,
    LinearProbeThenFineTuneSpec,
    PartialFineTuningSpec,
    PlateauSpec,
)
from unfreeze_api.tasks import task_type
from unfreeze_trainer.errors import JobError

ALL = "all"
"""Name of a phase that trains every block."""

_TRIAL_STEPS = 10
"""Of a rung, that show anything."""

Part = Literal["All", "BiasesAndNorms"]


@dataclass(frozen=True)
class Phase:
    """A stretch of steps with one trainable set."""

    index: int
    """From 0."""
    name: str
    """The topmost block that trains for the first time here; `all` where everything does at once."""
    trainable: tuple[str, ...]
    """Names of the blocks that train, from input to output."""
    learning_rates: dict[str, float]
    """Peak learning rate of each of these blocks."""
    first_step: int
    """Optimizer steps of the job before this phase."""
    steps: int
    """Optimizer steps of this phase, at least one."""
    part: Part = "All"
    """What of the blocks below the head trains."""
    adapter_rate: float | None = None
    """Peak learning rate of the adapter where it trains in every block, beside own weights of `trainable`; None where it
    trains in place of them."""
    plateau: PlateauSpec | None = None
    """Ends the phase before its steps are done."""
    rung: str = ""
    """Of Auto, which rung it is: it begins with the best weights before it, if it begins. Empty elsewhere."""
    solved: bool = False
    """Whether a solver finds its head, in place of steps; in the plan that is one step."""
    trial: int = 0
    """Of a rung after the first, its steps after which it is given up unless it promises something; 0 of those that are never."""


def compile_phases(
    job: ResolvedJob, block_names: Sequence[str], steps_per_epoch: int, *, headless: bool | None = None
) -> list[Phase]:
    """Compile the job's strategy.

    training.epochs are the epochs of all phases together; the last phase takes what the others leave, and phases for
    which nothing is left do not exist. The backbone's rate is that of the block next to the head; each block further
    down has layer_decay times the rate of the one above it (layer-wise decay, Clark et al. 2020, arXiv 2003.10555;
    discriminative fine-tuning, Howard and Ruder 2018, arXiv 1801.06146).

    A phase that its plateau ends early leaves its other steps undone: what follows keeps its place in the plan.

    Of Auto each rung takes training.epochs, unless it says its own: the plan is what is done at most.

    A phase that is solved takes one step, and stands in the place of the first one.

    Parameters
    ----------
    job
        Its strategy, learning rates and training.epochs count.
    block_names
        From input to output; the last one is the head.
    steps_per_epoch
        Optimizer steps of one pass over the training data.
    headless
        Whether the head is one without parameters; None where the task says so.

    Raises
    ------
    JobError
        InvalidStrategy: the strategy names a block that the model does not have, or names one twice. InvalidAdapter:
        AdaLoRA's schedule does not fit the phase.
    """
    if auto := job.strategy.of(AutoSpec):
        stretches = _climb(auto, job.training.epochs, steps_per_epoch, block_names)
        total = sum(stretch.steps for stretch in stretches)
    else:
        stretches = _plan(job, block_names, steps_per_epoch)
        total = max(1, round(job.training.epochs * steps_per_epoch))
    if job.strategy.solver == "Closed":
        first, *others = stretches
        total = total + 1 - first.steps if auto else max(total, 2) if others else 1
        stretches = [replace(first, steps=1, plateau=None, solved=True), *others]
    if bool(task_type(job.task.type).no_head) if headless is None else headless:
        stretches = _without_head(stretches, block_names)
    rates = _learning_rates(job.strategy.learning_rate, block_names)
    part: Part = "BiasesAndNorms" if job.strategy.type == "BitFit" else "All"
    beside = job.adapter is not None and job.adapter.base_weights == "ByStrategy"
    adapter_rate = job.strategy.learning_rate.head if beside else None
    phases: list[Phase] = []
    first_step = 0
    for index, stretch in enumerate(stretches):
        left = total - first_step
        if left == 0:
            break
        last = index == len(stretches) - 1
        steps = left if last else min(stretch.steps, left)
        if index == 0 and steps == total > 1 and not last:
            steps -= 1  # rounding must not turn a strategy of several phases into its first one
        trainable = {block: rates[block] for block in block_names if block in stretch.blocks}
        plateau = None if last and not stretch.rung else stretch.plateau
        phases.append(
            Phase(
                index,
                stretch.name,
                tuple(trainable),
                trainable,
                first_step,
                steps,
                part,
                adapter_rate,
                plateau,
                stretch.rung,
                stretch.solved,
                trial_steps(steps) if stretch.rung and index else 0,
            )
        )
        first_step += steps
    if job.adapter and (ranks := job.adapter.of(AdaLoraSpec)):
        _check_allocation(ranks, phases[-1].steps)
    return phases


def trial_steps(steps: int) -> int:
    """Return the first steps of a rung that show what it promises: a tenth, 10 at least; 0 where that is more than a third."""
    trial = max(_TRIAL_STEPS, -(-steps // 10))
    return trial if 3 * trial <= steps else 0


def _check_allocation(ranks: AdaLoraSpec, steps: int) -> None:
    if steps <= max(ranks.tinit, 1) + ranks.tfinal:
        raise JobError(
            "InvalidAdapter",
            f"spec.adapter.adaLora: the phase that trains it has {steps} steps, and none of them is left between tinit"
            f" {ranks.tinit} and tfinal {ranks.tfinal} for taking ranks away: lower them, or raise spec.training.epochs",
        )


@dataclass(frozen=True)
class _Stretch:
    """A phase before steps are counted out."""

    name: str
    blocks: Collection[str]
    steps: int = 0
    """0 where the phase takes what the others leave."""
    plateau: PlateauSpec | None = None
    rung: str = ""
    solved: bool = False


def _plan(job: ResolvedJob, blocks: Sequence[str], steps_per_epoch: int) -> list[_Stretch]:
    strategy, below, head = job.strategy, blocks[:-1], blocks[-1]

    def steps(epochs: float) -> int:
        return max(1, round(epochs * steps_per_epoch))

    if strategy.type == "FeatureExtraction" or not below:
        return [_Stretch(head, [head])]
    if strategy.type == "PartialFineTuning":
        partial = strategy.of(PartialFineTuningSpec)
        assert partial is not None
        if partial.blocks is None:
            return [_Stretch(head, [*below[-(partial.last_blocks or 0) :], head])]
        _check_names("partialFineTuning.blocks", partial.blocks, below)
        return [_Stretch(head, [*partial.blocks, head])]
    if strategy.type in ("FullFineTuning", "BitFit"):
        return [_Stretch(ALL, blocks)]
    if strategy.type == "LinearProbeThenFineTune":
        probe = strategy.of(LinearProbeThenFineTuneSpec)
        assert probe is not None
        return [_Stretch(head, [head], steps(probe.probe_epochs), probe.until_plateau), _Stretch(ALL, blocks)]
    gradual = strategy.of(GradualUnfreezingSpec)
    assert gradual is not None
    return _thaw(gradual, gradual.steps_per_phase or steps(gradual.epochs_per_phase or 1), below, head)


def _climb(auto: AutoSpec, epochs: float, steps_per_epoch: int, blocks: Sequence[str]) -> list[_Stretch]:
    """Return the phases of Auto, one for each rung; the upper half of one block is all of them, and left out."""
    found: list[_Stretch] = []
    below, head = blocks[:-1], blocks[-1]
    rungs, warmed = auto.completed().rungs or [], False
    for index, rung in enumerate(rungs):
        if rung.blocks:
            _check_names(f"auto.rungs[{index}].blocks", rung.blocks, below)
        chosen = _blocks_of(rung, below)
        if not _says_which(rung) and len(chosen) == len(below):
            continue
        if any({*one.blocks} == {*chosen, head} for one in found):
            if not below:  # every rung trains the head
                continue
            raise JobError(
                "InvalidStrategy",
                f"spec.strategy.auto.rungs[{index}] trains the same blocks as one before it ({', '.join([*chosen, head])}): remove"
                " one of them",
            )
        fresh = [name for name in chosen if all(name not in one.blocks for one in found)]
        probes, share = rung.type == "FeatureExtraction", 1.0
        if probes:
            share = PROBE_EPOCHS
        elif not _says_which(rung) and index < len(rungs) - 1:
            share, warmed = UPPER_EPOCHS, rung.epochs is None
        elif warmed and rung.type == "FullFineTuning":
            share = WHOLE_EPOCHS
        name = ALL if rung.type == "FullFineTuning" else [head, *chosen, *fresh][-1]
        again = sum(
            name in (one.name, one.name.rpartition("-")[0]) for one in found
        )  # trains nothing for the first time
        found.append(
            _Stretch(
                f"{name}-{again + 1}" if again else name,
                [*chosen, head],
                max(1, round((rung.epochs or epochs * share) * steps_per_epoch)),
                PlateauSpec(patience=PROBE_PATIENCE) if probes and rung.epochs is None else None,
                _rung_name(rung, len(chosen), index, {one.rung for one in found}),
            )
        )
    return found


def _rung_name(rung: AutoRungSpec, blocks: int, index: int, taken: Collection[str]) -> str:
    """Return what decisions call a rung: its type, how many blocks it trains, and where that is another one's name its place."""
    name = f"{rung.type} {blocks}" if rung.type == "PartialFineTuning" else rung.type
    return f"{name} (rungs[{index}])" if name in taken else name


def _says_which(rung: AutoRungSpec) -> bool:
    return rung.type != "PartialFineTuning" or rung.last_blocks is not None or rung.blocks is not None


def _blocks_of(rung: AutoRungSpec, below: Sequence[str]) -> list[str]:
    """Return the blocks that a rung trains below the head, from input to output."""
    if rung.type != "PartialFineTuning":
        return list(below) if rung.type == "FullFineTuning" else []
    if rung.blocks:
        return [name for name in below if name in rung.blocks]
    return list(below[-(rung.last_blocks or -(-len(below) // 2)) :])


def _without_head(stretches: Sequence[_Stretch], block_names: Sequence[str]) -> list[_Stretch]:
    """Return the phases of a model that has no head: those in which it would train alone are left out."""
    *below, head = block_names
    kept = []
    for stretch in stretches:
        if blocks := [name for name in below if name in stretch.blocks]:
            name = blocks[-1] if stretch.name == head else stretch.name
            kept.append(replace(stretch, name=name, blocks=blocks))
    return kept


def _thaw(gradual: GradualUnfreezingSpec, steps: int, below: Sequence[str], head: str) -> list[_Stretch]:
    """Return the phases of gradual unfreezing; a group's name is that of its topmost block."""
    place = {name: index for index, name in enumerate(below)}
    if gradual.groups is not None:
        _check_names("gradualUnfreezing.groups", [name for group in gradual.groups for name in group], below)
        groups = [sorted(group, key=place.__getitem__) for group in gradual.groups]
    else:
        size = gradual.blocks_per_phase or 1
        groups = [list(below[max(0, top - size) : top]) for top in range(len(below), 0, -size)]

    def stretch(name: str, blocks: Collection[str]) -> _Stretch:
        return _Stretch(name, blocks, steps, gradual.until_plateau)

    if gradual.order == "ChainThaw":
        alone = [stretch(group[-1], group) for group in reversed(groups)]
        return [stretch(head, [head]), *alone, _Stretch(ALL, [*below, head])]
    opened = [[name for group in groups[:count] for name in group] for count in range(len(groups) + 1)]
    names = [head, *(group[-1] for group in groups)]
    return [stretch(name, [*blocks, head]) for name, blocks in zip(names, opened, strict=True)]


def _check_names(field: str, names: Sequence[str], below: Sequence[str]) -> None:
    unknown = [name for name in dict.fromkeys(names) if name not in below]
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if unknown:
        raise JobError(
            "InvalidStrategy",
            f"spec.strategy.{field}: this model has no block {', '.join(unknown)} below its head; its blocks are"
            f" {', '.join(below)} (the head needs no naming)",
        )
    if doubled:
        raise JobError("InvalidStrategy", f"spec.strategy.{field}: {', '.join(doubled)} is named more than once")


def _learning_rates(rate: LearningRate, blocks: Sequence[str]) -> dict[str, float]:
    below = reversed(blocks[:-1])
    return {blocks[-1]: rate.head, **{name: rate.backbone * rate.layer_decay**i for i, name in enumerate(below)}}
