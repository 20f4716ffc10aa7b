"""How much work of a training is left."""

from __future__ import annotations

from unfreeze_trainer.phases.compile import Phase
from unfreeze_trainer.phases.remaining import remaining_work, step_work

BLOCKS = ["embeddings", "layer.0", "layer.1", "head"]


def phase(index, first_step, steps, *trainable):
    rates = dict.fromkeys(trainable, 1e-3)
    return Phase(index, trainable[0], trainable, rates, first_step, steps)


def test_a_step_costs_a_forward_pass_and_a_backward_pass_down_to_the_lowest_block_that_trains():
    assert step_work(phase(0, 0, 1, "head"), BLOCKS) == 1 + 2 * 1 / 4
    assert step_work(phase(0, 0, 1, *BLOCKS), BLOCKS) == 3
    assert step_work(phase(0, 0, 1, "embeddings"), BLOCKS) == 3


def test_later_phases_count_for_what_they_cost():
    phases = [phase(0, 0, 10, "head"), phase(1, 10, 20, "layer.1", "head"), phase(2, 30, 40, *BLOCKS)]
    assert remaining_work(phases, BLOCKS, 0, 0) == 10 * 1.5 + 20 * 2 + 40 * 3
    assert remaining_work(phases, BLOCKS, 25, 1) == 5 * 2 + 40 * 3
    assert remaining_work(phases, BLOCKS, 70, 2) == 0


def test_what_a_phase_that_ended_early_left_undone_does_not_count():
    phases = [phase(0, 0, 10, "head"), phase(1, 10, 20, "head")]
    assert remaining_work(phases, BLOCKS, 10, 1) == 20 * 1.5
