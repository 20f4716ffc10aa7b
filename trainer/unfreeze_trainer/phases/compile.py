"""Strategies to phases: the one pure function that knows what a strategy is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unfreeze_api.resolve import LearningRate, ResolvedJob

ALL = "all"
"""Name of a phase that trains every block."""


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


def compile_phases(job: ResolvedJob, block_names: Sequence[str], steps_per_epoch: int) -> list[Phase]:
    """Compile the job's strategy.

    training.epochs are the epochs of all phases together; the last phase takes what the others leave, and phases for
    which nothing is left do not exist. The backbone's rate is that of the block next to the head; each block further
    down has layer_decay times the rate of the one above it (layer-wise decay, Clark et al. 2020, arXiv 2003.10555;
    discriminative fine-tuning, Howard and Ruder 2018, arXiv 1801.06146).

    Parameters
    ----------
    job
        Its strategy, learning rates and training.epochs count.
    block_names
        From input to output; the last one is the head.
    steps_per_epoch
        Optimizer steps of one pass over the training data.
    """
    total = max(1, round(job.training.epochs * steps_per_epoch))
    depths, wanted, names = _plan(job, block_names, steps_per_epoch)
    phases: list[Phase] = []
    first_step = 0
    for index, (depth, name) in enumerate(zip(depths, names, strict=True)):
        left = total - first_step
        if left == 0:
            break
        steps = left if index == len(depths) - 1 else min(wanted, left)
        if index == 0 and steps == total > 1 and len(depths) > 1:
            steps -= 1  # rounding must not turn a strategy of several phases into its first one
        trainable = tuple(block_names[len(block_names) - 1 - depth :])
        rates = _learning_rates(job.strategy.learning_rate, block_names)
        phases.append(Phase(index, name, trainable, {block: rates[block] for block in trainable}, first_step, steps))
        first_step += steps
    return phases


def _plan(job: ResolvedJob, blocks: Sequence[str], steps_per_epoch: int) -> tuple[list[int], int, list[str]]:
    """Return for each phase how many blocks below the head train, the steps of all but the last, and names."""
    strategy, backbone, head = job.strategy, len(blocks) - 1, blocks[-1]

    def steps(epochs: float) -> int:
        return max(1, round(epochs * steps_per_epoch))

    if strategy.type == "FeatureExtraction" or backbone == 0:
        return [0], 0, [head]
    if strategy.type == "PartialFineTuning":
        assert strategy.partial_fine_tuning is not None
        return [min(strategy.partial_fine_tuning.last_blocks, backbone)], 0, [head]
    if strategy.type == "FullFineTuning":
        return [backbone], 0, [ALL]
    if strategy.type == "LinearProbeThenFineTune":
        assert strategy.linear_probe_then_fine_tune is not None
        return [0, backbone], steps(strategy.linear_probe_then_fine_tune.probe_epochs), [head, ALL]
    assert strategy.gradual_unfreezing is not None
    per_phase = strategy.gradual_unfreezing.blocks_per_phase
    depths = [min(phase * per_phase, backbone) for phase in range(math.ceil(backbone / per_phase) + 1)]
    names = [head, *(blocks[backbone - 1 - depth] for depth in depths[:-1])]
    return depths, steps(strategy.gradual_unfreezing.epochs_per_phase), names


def _learning_rates(rate: LearningRate, blocks: Sequence[str]) -> dict[str, float]:
    below = reversed(blocks[:-1])
    return {blocks[-1]: rate.head, **{name: rate.backbone * rate.layer_decay**i for i, name in enumerate(below)}}


def schedule_factor(learning_rate: LearningRate, step: int, total_steps: int) -> float:
    """Return what every peak learning rate is multiplied by at one step.

    Warm-up and course span the whole job, whatever its phases: a linear rise, then constant, linear to 0, or half a
    cosine to 0 (Loshchilov and Hutter 2016, arXiv 1608.03983). No step has rate 0: the rise ends at its last step
    and the fall would reach 0 one step after the job.

    Parameters
    ----------
    learning_rate
        Schedule and warm-up.
    step
        From 0, over the whole job.
    total_steps
        Optimizer steps of the whole job.
    """
    warmup = min(round(learning_rate.warmup_ratio * total_steps), total_steps - 1)
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    match learning_rate.schedule:
        case "Constant":
            return 1.0
        case "Linear":
            return 1.0 - done
        case "Cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
