"""Which sample is trained on when: a pure function of seed, epoch and batch size that no world size changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """Return the permutation of `range(n)` in which one epoch goes through the training data, int64 of shape (n,)."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def global_batches(order: Sequence[int] | np.ndarray, batch_size: int) -> list[Sequence[int]]:
    """Cut an epoch's order into the batches of all workers together.

    The last batch may be short and is never dropped: an epoch has ceil(n / batch_size) steps.
    """
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]  # type: ignore[misc]


def shard(batch: Sequence[int], rank: int, world_size: int) -> Sequence[int]:
    """Return one worker's part of a global batch; empty where a short batch has fewer samples than workers."""
    return batch[rank::world_size]


def evaluation_shard(n: int, rank: int, world_size: int) -> range:
    """Return the samples that one worker evaluates; over all ranks every sample exactly once."""
    return range(rank, n, world_size)
