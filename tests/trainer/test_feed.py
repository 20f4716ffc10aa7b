"""A step is the mean over the units of its samples, however ranks and micro batches divide it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.mlp import MLPTask
from unfreeze_trainer.feed import Feed


class Weighted(MLPTask):
    """A batch is its samples' numbers, and the loss of a sample the sum of its units' losses."""

    def __init__(self, units):
        self.counts = np.array(units, dtype=np.int64)
        self.splits = {"train": len(units)}
        self.losses = np.random.default_rng(0).normal(size=len(units)) * self.counts

    def units(self, split):
        assert split == "train"
        return self.counts

    lengths = units

    def batches(self, _split, batches, **_):
        for indices in batches:
            yield {"samples": torch.as_tensor(np.asarray(indices, dtype=np.int64))}

    def loss_of(self, micro):
        return self.losses[micro.tensors["samples"].numpy()].sum()


def feeds(task, batch_size, accumulate, world_size, *, grouped=False):
    same = {"seed": 3, "batch_size": batch_size, "accumulate": accumulate, "group_by_length": grouped}
    return [Feed(task, **same, rank=rank, world_size=world_size) for rank in range(world_size)]


@pytest.mark.slow
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=30),
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
)
def test_a_step_is_the_mean_over_its_units(units, batch_size, accumulate, world_size, grouped):
    task = Weighted(units)
    ranks = feeds(task, batch_size, accumulate, world_size, grouped=grouped)
    for steps in zip(*(feed.steps(0, feed.steps_per_epoch) for feed in ranks), strict=True):
        step = [list(micros) for _, micros in steps]
        assert len({len(micros) for micros in step}) == 1, "each rank takes part in each collective"
        mean = sum(task.loss_of(micro) * micro.scale for micros in step for micro in micros) / world_size
        samples = np.concatenate([micro.tensors["samples"] for micros in step for micro in micros])
        counted = task.counts[samples].sum()
        assert counted == sum(micro.units for micros in step for micro in micros)
        assert mean == pytest.approx(task.losses[samples].sum() / max(1, counted))


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 4), st.integers(1, 4))
def test_where_each_sample_is_a_unit_it_is_the_mean_over_samples(samples, batch_size, accumulate, world_size):
    for feed in feeds(Weighted([1] * samples), batch_size, accumulate, world_size):
        for number, micros in feed.steps(0, feed.steps_per_epoch):
            size = min(batch_size, samples - number * batch_size)
            assert {micro.scale for micro in micros} == {world_size / size}


def test_the_share_of_padding_is_that_of_the_batches_of_all_ranks():
    lengths = np.random.default_rng(0).geometric(0.08, size=400)
    found = {}
    for accumulate, world_size, grouped in ((1, 1, False), (4, 2, False), (1, 1, True)):
        ranks = feeds(Weighted(lengths), 32, accumulate, world_size, grouped=grouped)
        given = padded = 0
        for feed in ranks:
            for _, micros in feed.steps(0, feed.steps_per_epoch):
                for micro in micros:
                    part = lengths[micro.tensors["samples"]]
                    given, padded = given + part.sum(), padded + len(part) * part.max(initial=0)
        assert {feed.padding() for feed in ranks} == {1 - given / padded}
        found[accumulate, grouped] = ranks[0].padding()
    assert max(found[1, True], found[4, False]) < found[1, False]


def test_samples_without_lengths_have_no_padding():
    task = Weighted([1, 2, 3])
    task.lengths = lambda _: np.zeros(3, dtype=np.int64)
    [feed] = feeds(task, 2, 1, 1)
    assert feed.padding() == 0
