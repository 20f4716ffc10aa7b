"""What is left of a training, as work and not as steps: those of a head alone are cheap, those of a whole model are not.

The unit is one forward pass of the model. Blocks count alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from unfreeze_trainer.phases.compile import Phase

_BACKWARD = 2.0
"""Cost of a block's backward pass in forward passes (Kaplan et al. 2020, arXiv 2001.08361, section 2.1)."""


def step_work(phase: Phase, block_names: Sequence[str], start: int = 0) -> float:
    """Return the work of one step: blocks compute, the backward pass goes down to the lowest one that trains.

    Parameters
    ----------
    phase
        Whose step it is.
    block_names
        From input to output.
    start
        How many of the lowest have computed already.
    """
    lowest = next(number for number, name in enumerate(block_names) if name in phase.trainable)
    return 1 - start / len(block_names) + _BACKWARD * (1 - lowest / len(block_names))


def remaining_work(
    phases: Sequence[Phase],
    block_names: Sequence[str],
    step: int,
    current: int,
    starts: Mapping[int, int] = MappingProxyType({}),
) -> float:
    """Return the work of the steps that are left.

    Parameters
    ----------
    phases
        All phases of the job.
    block_names
        From input to output.
    step
        Optimizer steps of the job that are done.
    current
        Index of the phase that trains now; what earlier ones left undone does not count.
    starts
        By phase, how many of the lowest blocks have computed already.
    """

    def of_step(phase: Phase) -> float:
        return step_work(phase, block_names, starts.get(phase.index, 0))

    work = sum(phase.steps * of_step(phase) for phase in phases[current:])
    return work - (step - phases[current].first_step) * of_step(phases[current])
