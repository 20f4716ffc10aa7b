"""What the guard knows a tensor by: the sum of its bits, each element's weighed by its place in the whole tensor."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor

_Integers = np.ndarray[tuple[int], np.dtype[np.int64]]

_ROW = 1 << 16
"""Words that the table of weights is for."""
_ROWS = 16
"""Rows that are weighed at once."""
BESIDE = 8 * _ROWS * _ROW
"""Bytes that a sum takes beside its tensor, at most."""


def bit_sum(tensor: Tensor, *, salt: int = 0, first: int = 0) -> Tensor:
    """Return the weighed sum of a tensor's bits modulo 2 ** 64: int64 without dimensions, where the tensor lies.

    An element counts as the integer of its size that has its bits, one of 8 bytes as two of 4. Sums of parts add up to
    that of the whole tensor, however it is divided. A change of one element always changes the sum. Another change leaves
    it as it is with a chance of 2 ** -60 mostly, 2 ** -27 at worst (sign bits in a pattern that two rows share).

    Parameters
    ----------
    tensor
        A whole tensor, or a part of one, flattened, without a gap.
    salt
        Of the whole tensor, so that equal tensors have different sums; below 2 ** 23.
    first
        Element of the whole tensor, flattened, that the part begins with.

    Notes
    -----
    The weights have to be random. Optimizers move elements by equal and by opposite amounts (Adam's first step; the two
    biases of a head of two classes), which cancel out where weights are equal or linear in the place. A weight is the
    product of two odd outputs of SplitMix64 (Steele et al. 2014): that of the place in its row of 65,536 words, from a
    table, and that of the row and the salt. To compute one for each place takes twenty times as long.
    """
    words = _words(tensor)
    row, place = divmod(first * max(1, tensor.element_size() // 4), _ROW)
    weights = _weights(words.device)
    head, rest = words[: _ROW - place], words[_ROW - place :]
    total = (head * weights[place : place + len(head)]).sum() * _row_weight(salt, row)
    if len(rest):
        full = len(rest) // _ROW
        rows = torch.from_numpy(_odd(np.arange(row + 1, row + 1 + full, dtype=np.uint64) | _salted(salt)))
        blocks = torch.split(rest[: full * _ROW].view(full, _ROW), _ROWS)
        for block, factors in zip(blocks, torch.split(rows.to(words.device), _ROWS), strict=True):
            # Whole numbers of 64 bits first: else both they and the product are there at once.
            total += (block.long().mul_(weights).sum(1) * factors).sum()
        tail = rest[full * _ROW :]
        total += (tail * weights[: len(tail)]).sum() * _row_weight(salt, row + 1 + full)
    return total


def _words(tensor: Tensor) -> Tensor:
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32}[tensor.element_size()]
    return tensor.detach().contiguous().view(-1).view(integer)


@cache
def _weights(device: torch.device) -> Tensor:
    """Return the weight of each place in a row."""
    return torch.from_numpy(_odd(np.arange(_ROW, dtype=np.uint64) | np.uint64(1 << 63))).to(device)


@lru_cache(maxsize=1 << 16)
def _row_weight(salt: int, row: int) -> int:
    return int(_odd(np.array([row], dtype=np.uint64) | _salted(salt))[0])


def _salted(salt: int) -> np.uint64:
    return np.uint64(salt << 40)


def _odd(states: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> _Integers:
    """Return SplitMix64's output for each state, made odd."""
    mixed = states + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ mixed >> np.uint64(31) | np.uint64(1)).view(np.int64)
