"""Which sample is trained on when: a pure function of seed, epoch and batch size that no world size changes."""

from __future__ import annotations

import numpy as np

WINDOW = 50
"""Batches whose samples are sorted by length together: little padding is left, and batches of an epoch differ from the last's."""


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


def grouped_by_length(order: np.ndarray, lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return an epoch's order in which the samples of each batch are of similar length, int64 of its shape.

    Runs of WINDOW batches are sorted by length and cut, and the batches come in random order. So a batch is drawn out of
    many at random, as long as there are many of its length. The short last batch of an epoch stays as it was drawn.

    Parameters
    ----------
    order
        Of the samples, as drawn.
    lengths
        Of each sample, int64 of shape (samples,).
    batch_size
        Samples of a batch of all workers together.
    seed, epoch
        That the order of the batches depends on.
    """
    whole = len(order) - len(order) % batch_size
    window = WINDOW * batch_size
    runs = [order[start : min(start + window, whole)] for start in range(0, whole, window)]
    batches = [batch for run in runs for batch in run[np.argsort(lengths[run], kind="stable")].reshape(-1, batch_size)]
    places = np.random.default_rng([seed, epoch, len(order)]).permutation(len(batches))
    return np.concatenate([*(batches[place] for place in places), order[whole:]])


def balanced_chances(groups: np.ndarray) -> np.ndarray:
    """Return the probability of each sample with which each group is drawn as often as any other, float64 of shape (n,)."""
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return 1 / (len(counts) * counts[group])


def global_batches(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut an epoch's order into the batches of all workers together.

    The last batch may be short and is never dropped: an epoch has ceil(n / batch_size) steps.
    """
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def by_length(batch: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return a batch's samples from the shortest to the longest, so that those that share a micro batch are alike, int64 of shape (samples,)."""
    return batch[np.argsort(lengths[batch], kind="stable")]


def shard(batch: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """Return one worker's part of a global batch; empty where a short batch has fewer samples than workers."""
    return batch[rank::world_size]


def evaluation_shard(n: int, rank: int, world_size: int) -> range:
    """Return the samples that one worker evaluates; over all ranks every sample exactly once."""
    return range(rank, n, world_size)
