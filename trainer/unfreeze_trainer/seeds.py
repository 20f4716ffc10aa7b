"""Randomness of a step is a function of (seed, step, rank): a run that resumes draws what the uninterrupted run drew.

So there is no generator state to save or to lose, and a run that resumes with another number of workers is defined too.
"""

from __future__ import annotations

import random

import numpy as np
import torch

_MASK = (1 << 64) - 1


def mix(*values: int) -> int:
    """Return a 32-bit hash of integers (SplitMix64's finalizer, Steele et al. 2014)."""
    state = 0x9E3779B97F4A7C15
    for value in values:
        state = (state ^ value) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state & 0xFFFFFFFF


def seed_everything(*values: int) -> None:
    """Seed torch (the CPU and the accelerator in use), numpy and Python from integers; costs some 20 µs.

    torch.manual_seed would take up to 600 µs where CUDA is not in use: it notes down the stack for a later start.
    """
    seed = mix(*values)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - models that mask spectrograms draw from the global generator
    random.seed(seed)
