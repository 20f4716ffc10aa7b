"""Order, batches and shards: every sample exactly once per epoch, whatever the world size."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unfreeze_trainer.data.order import (
    WINDOW,
    by_length,
    epoch_order,
    evaluation_shard,
    global_batches,
    grouped_by_length,
    shard,
)


@given(seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 50), n=st.integers(1, 200))
def test_order_is_a_permutation_of_seed_and_epoch(seed: int, epoch: int, n: int) -> None:
    order = epoch_order(seed, epoch, n)
    assert sorted(order) == list(range(n))
    assert np.array_equal(order, epoch_order(seed, epoch, n))


def test_epochs_and_seeds_differ() -> None:
    orders = [tuple(epoch_order(seed, epoch, 50)) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9


@given(n=st.integers(1, 100), batch_size=st.integers(1, 40), world_size=st.integers(1, 9))
def test_workers_divide_every_batch(n: int, batch_size: int, world_size: int) -> None:
    batches = global_batches(epoch_order(0, 0, n), batch_size)
    assert len(batches) == -(-n // batch_size)
    for batch in batches:
        parts = [shard(batch, rank, world_size) for rank in range(world_size)]
        assert sorted(i for part in parts for i in part) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert len(parts[0]) > 0
    assert sorted(i for batch in batches for i in batch) == list(range(n))


@given(n=st.integers(0, 100), world_size=st.integers(1, 9))
def test_evaluation_sees_every_sample_once(n: int, world_size: int) -> None:
    seen = [i for rank in range(world_size) for i in evaluation_shard(n, rank, world_size)]
    assert sorted(seen) == list(range(n))


LENGTHS = np.random.default_rng(0).geometric(0.08, size=5000)


@given(seed=st.integers(0, 9), epoch=st.integers(0, 9), n=st.integers(1, 300), batch_size=st.integers(1, 40))
def test_samples_that_are_grouped_by_length_still_come_once(seed: int, epoch: int, n: int, batch_size: int) -> None:
    drawn = epoch_order(seed, epoch, n)
    order = grouped_by_length(drawn, LENGTHS[:n], batch_size, seed=seed, epoch=epoch)
    assert sorted(order) == list(range(n))
    tail = n % batch_size
    assert np.array_equal(order[n - tail :], drawn[n - tail :]), "the short batch is drawn at random"
    assert np.array_equal(order, grouped_by_length(drawn, LENGTHS[:n], batch_size, seed=seed, epoch=epoch))


def test_batches_that_are_grouped_by_length_are_alike_and_come_in_any_order() -> None:
    size = 32
    epochs = []
    for epoch in range(2):
        order = grouped_by_length(epoch_order(0, epoch, 5000), LENGTHS, size, seed=0, epoch=epoch)
        batches = global_batches(order, size)[:-1]
        longest = np.array([LENGTHS[batch].max() for batch in batches])
        drawn = global_batches(epoch_order(0, epoch, 5000), size)
        grouped, random = (np.mean([np.ptp(LENGTHS[batch]) for batch in some]) for some in (batches, drawn))
        assert grouped < random / 5
        assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3, "short and long batches are mixed"
        assert longest[:WINDOW].mean() < 2 * longest[-WINDOW:].mean()
        epochs.append({frozenset(batch) for batch in batches})
    assert not epochs[0] & epochs[1], "each epoch has other batches"


def test_a_sample_that_is_drawn_twice_stands_in_the_epoch_twice() -> None:
    drawn = epoch_order(0, 0, 100, np.full(100, 0.01))
    order = grouped_by_length(drawn, LENGTHS[:100], 8, seed=0, epoch=0)
    assert sorted(order) == sorted(drawn)


def test_micro_batches_of_all_ranks_are_cut_from_the_short_to_the_long() -> None:
    batch = by_length(epoch_order(0, 0, 24), LENGTHS[:24])
    assert np.all(np.diff(LENGTHS[batch]) >= 0)
    first, second = (LENGTHS[shard(batch, rank, 2)] for rank in range(2))
    assert np.all(first <= second)
    assert np.all(second[:-1] <= first[1:])
