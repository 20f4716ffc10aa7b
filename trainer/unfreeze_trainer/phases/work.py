"""What a step costs, as work: those of a head alone are cheap, those of a whole model are not.

The unit is one forward pass of the model.
"""

from __future__ import annotations

from collections.abc import Sequence

from unfreeze_trainer.phases.compile import Phase

_BACKWARD = 3.0
"""Time of a block's backward pass with its update, in forward passes without gradients: the operations are two (Kaplan et al. 2020, arXiv
2001.08361, section 2.1); measured on CPUs were 2.6 to 2.9 for MiniLM, with what two workers exchange, and 4.1 for EfficientNet-lite0."""
_LAYER, _BESIDE = "layer.", 0.1
"""How names of layers begin, and the work of embeddings or a head where a layer's is 1: they look up, or see one vector a sample."""


def shares(block_names: Sequence[str]) -> list[float]:
    """Return the share of each block, from input to output, in a forward pass: layers count alike, others for less beside them."""
    work = [1.0 if name.startswith(_LAYER) else _BESIDE for name in block_names]
    return [each / sum(work) for each in work]


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
    forward = shares(block_names)
    return sum(forward[start:]) + _BACKWARD * sum(forward[lowest:])
