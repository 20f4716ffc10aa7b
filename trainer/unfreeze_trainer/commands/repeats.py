"""Samples that stand several times in the data, within a split and between splits, and whether what they are to become differs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from unfreeze_trainer.commands.surveyed import Repeated


def within(inputs: np.ndarray, targets: np.ndarray) -> Repeated:
    """Count the samples of a split whose input stands before them in it.

    Parameters
    ----------
    inputs, targets
        The same number, from 0 on, for the same input or target, int64 of shape (samples,).
    """
    counts = np.bincount(inputs, minlength=1)
    again = counts[inputs] > 1
    disputed = _disputed(inputs[again], targets[again])
    return Repeated(samples=int(np.maximum(counts - 1, 0).sum()), conflicting=int((counts[disputed] - 1).sum()))


def between(inputs: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray]) -> dict[str, Repeated]:
    """Count the samples of each held-out split whose input stands in another split: {"test in train": ...}.

    Parameters
    ----------
    inputs, targets
        As of `within`, of each split; the numbers are those of all splits together.
    """
    found = {}
    size = max((int(part.max(initial=-1)) for part in inputs.values()), default=-1) + 1
    for name, others in (("validation", ("train",)), ("test", ("train", "validation"))):
        for other in others:
            if name not in inputs or other not in inputs:
                continue
            there = np.zeros(size, dtype=bool)
            there[inputs[other]] = True
            twice = there[inputs[name]]
            if not (count := int(twice.sum())):
                continue
            here = np.zeros(size, dtype=bool)
            here[inputs[name]] = True
            alike = here[inputs[other]]
            both = np.concatenate([inputs[name][twice], inputs[other][alike]])
            disputed = _disputed(both, np.concatenate([targets[name][twice], targets[other][alike]]))
            conflicting = int(np.isin(inputs[name][twice], disputed).sum())
            found[f"{name} in {other}"] = Repeated(samples=count, conflicting=conflicting)
    return found


def _disputed(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the inputs that stand with several targets."""
    kinds = int(targets.max(initial=0)) + 1
    owners, counts = np.unique(np.unique(inputs * kinds + targets) // kinds, return_counts=True)
    return owners[counts > 1]


def numbered(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the same number for the same target, int64 of shape (samples,) for each split.

    Parameters
    ----------
    values
        Of each split as `Targets.values`: numbers of shape (samples,) or (samples, columns), or arrays of arrays.
    """
    if not values:
        return {}
    parts = list(values.values())
    if parts[0].dtype == object:
        seen: dict[bytes, int] = {}
        whole = np.array([seen.setdefault(value.tobytes(), len(seen)) for part in parts for value in part], np.int64)
    else:
        flat = [part.reshape(len(part), -1) for part in parts]
        width = max(part.shape[1] for part in flat)
        rows = np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=-1) for part in flat])
        unique = rows[:, 0] if width == 1 else rows
        whole = np.unique(unique, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    ends = np.cumsum([len(part) for part in parts])[:-1]
    return dict(zip(values, np.split(whole, ends), strict=True))
