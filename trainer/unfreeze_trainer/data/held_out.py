"""Which samples are held out of the training data: at random, with the shares of their groups kept."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def hold_out(
    class_of: np.ndarray, fractions: Mapping[str, float], seed: int, *, of_each: bool = False
) -> dict[str, np.ndarray]:
    """Split samples at random, with the shares of the labels kept (stratified, by largest remainder).

    Each part has its fraction of all samples. It gets a sample of every label where it is large enough for that, and else
    of as many as it has room for, drawn at random; each label keeps at least one sample to train on.

    Parameters
    ----------
    class_of
        Class id of each sample, int64 of shape (samples,).
    fractions
        Share of each held-out part, like {"validation": 0.1}; together below 1.
    seed
        The same seed gives the same split.
    of_each
        Whether a part gets a sample of every label however small it is, as runs of the first version do.

    Returns
    -------
    dict
        Sorted indices of the samples of each part and of "train"; every sample is in exactly one.
    """
    rng = np.random.default_rng([seed, 1])
    order = rng.permutation(len(class_of))
    sizes = np.bincount(class_of, minlength=int(class_of.max(initial=-1)) + 1).astype(np.int64)
    # One sort, and no walk over all samples for each of many labels.
    by_class = np.split(order[np.argsort(class_of[order], kind="stable")], np.cumsum(sizes))[:-1]
    taken = np.zeros_like(sizes)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in fractions}
    for name, fraction in fractions.items():
        room = np.maximum(sizes - taken - 1, 0)
        wanted = round(len(class_of) * fraction)
        ties = np.arange(len(sizes)) if of_each else rng.permutation(len(sizes))
        counts = _shares(sizes * fraction, wanted, ties)
        if of_each:
            counts = np.minimum(np.clip(counts, 1, None), room)
        else:
            counts = np.minimum(counts, room)
            _fill_up(counts, room, rng)
            _cut_down(counts, sizes * fraction, wanted)
        for label, count in enumerate(counts):
            parts[name].append(by_class[label][taken[label] : taken[label] + count])
        taken += counts
    train = [members[start:] for members, start in zip(by_class, taken, strict=True)]
    return {name: np.sort(np.concatenate(indices)) for name, indices in {"train": train, **parts}.items() if indices}


def hold_out_whole(group_of: np.ndarray, fractions: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Split samples at random so that no group stands in two parts.

    Parameters
    ----------
    group_of, fractions, seed
        Group of each sample, int64 of shape (samples,); the others as of `hold_out`.

    Returns
    -------
    dict
        As of `hold_out`; a held-out part has no more than its fraction of all samples, and less where no group fits any more.
    """
    rng = np.random.default_rng([seed, 1])
    sizes = np.bincount(group_of)
    left = rng.permutation(len(sizes))
    parts: dict[str, np.ndarray] = {}
    for name, fraction in fractions.items():
        room, taken = round(len(group_of) * fraction), []
        for group in left:
            if sizes[group] <= room:
                taken.append(group)
                room -= int(sizes[group])
        left = left[~np.isin(left, taken)]
        parts[name] = np.flatnonzero(np.isin(group_of, taken))
    return {"train": np.flatnonzero(np.isin(group_of, left)), **parts}


def _shares(exact: np.ndarray, total: int, ties: np.ndarray) -> np.ndarray:
    """Round shares to whole numbers that add up to a total, by largest remainder; `ties` is who comes first of equals."""
    counts = np.floor(exact).astype(np.int64)
    rest = total - int(counts.sum())
    counts[ties[np.argsort((counts - exact)[ties], kind="stable")[:rest]]] += 1
    return counts


def _fill_up(counts: np.ndarray, room: np.ndarray, rng: np.random.Generator) -> None:
    """Give labels without a sample one each, at random, as far as others have more than one to spare."""
    empty = rng.permutation(np.flatnonzero((counts == 0) & (room > 0)))
    counts[empty[: int(np.maximum(counts - 1, 0).sum())]] = 1


def _cut_down(counts: np.ndarray, exact: np.ndarray, wanted: int) -> None:
    """Take samples from the labels that are most above their share until there are no more than wanted."""
    while counts.sum() > wanted and counts.max() > 1:
        counts[np.argmax(np.where(counts > 1, counts - exact, -np.inf))] -= 1
