"""Which rows of features lie near each other, by the cosine. Pure."""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 10
"""That are asked of each row: a handful, as of a class with 1 % of 1,000 rows there are ten."""
SAME = 1e-6
"""Cosines that are no further apart are of neighbours that are equally near."""


def centre(values: np.ndarray) -> np.ndarray:
    """Return features less their mean, float64 of shape (rows, width)."""
    whole = np.asarray(values, dtype=np.float64)
    found: np.ndarray = whole - whole.mean(axis=0)
    return found


def directions(values: np.ndarray) -> np.ndarray:
    """Return rows of length 1, whose products are cosines, float64 of shape (rows, width); a row of zeros stays as it is."""
    whole = np.asarray(values, dtype=np.float64)
    found: np.ndarray = whole / np.maximum(np.linalg.norm(whole, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return found
