"""Which sample is trained on when: a pure function of seed, epoch and batch size that no world size changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def epoch_order(seed: int, epoch: int, n: int, chances: np.ndarray | None = None) -> np.ndarray:
    """Return the samples of `range(n)` in the order in which one epoch goes through them, int64 of shape (n,).

    Parameters
    ----------
    seed, epoch
        That it depends on.
    n
        Number of samples.
    chances
        Probability of each sample, float64 of shape (n,): with them samples are drawn with replacement, and without them
        each comes once.
    """
    rng = np.random.default_rng([seed, epoch])
    return rng.permutation(n) if chances is None else rng.choice(n, size=n, p=chances)


def balanced_chances(groups: np.ndarray) -> np.ndarray:
    """Return the probability of each sample with which each group is drawn as often as any other, float64 of shape (n,)."""
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return 1 / (len(counts) * counts[group])


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
