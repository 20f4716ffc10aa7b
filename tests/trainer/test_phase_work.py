"""What a step of a phase costs."""

from __future__ import annotations

import pytest

from unfreeze_trainer.phases.compile import Phase
from unfreeze_trainer.phases.work import step_work

BLOCKS = ["embeddings", "layer.0", "layer.1", "head"]


def phase(index, first_step, steps, *trainable):
    rates = dict.fromkeys(trainable, 1e-3)
    return Phase(index, trainable[0], trainable, rates, first_step, steps)


def test_a_step_costs_a_forward_pass_and_a_backward_pass_down_to_the_lowest_block_that_trains():
    assert step_work(phase(0, 0, 1, "head"), BLOCKS) == pytest.approx(1 + 3 * 0.1 / 2.2), "a head costs little"
    assert step_work(phase(0, 0, 1, "layer.1", "head"), BLOCKS) == pytest.approx(1 + 3 * 1.1 / 2.2)
    assert step_work(phase(0, 0, 1, *BLOCKS), BLOCKS) == pytest.approx(4)
    assert step_work(phase(0, 0, 1, "embeddings"), BLOCKS) == pytest.approx(4)
    assert step_work(phase(0, 0, 1, "head"), BLOCKS, 3) == pytest.approx(4 * 0.1 / 2.2), (
        "below it all has computed already"
    )
    assert step_work(phase(0, 0, 1, "head"), ["stem", "head"]) == pytest.approx(1 + 3 / 2), (
        "without layers blocks count alike"
    )
