"""Order, batches and shards: every sample exactly once per epoch, whatever the world size."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unfreeze_trainer.data.order import epoch_order, evaluation_shard, global_batches, shard


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
