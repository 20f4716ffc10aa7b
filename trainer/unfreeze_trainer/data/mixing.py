"""Pictures that are mixed of two, and the shares of both: drawn by the epoch's seed and the first one's index alone.

The second one is any sample of the split, and not one of the batch: so neither workers nor accumulation nor where a run resumed
change what is mixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unfreeze_api.tasks.image_classification import ImageClassificationSpec

PARTNERS, SHARES = "partners", "shares"
"""What a batch calls the indices of the second samples, and the shares of the first ones, beside the images."""
_STREAM = 1
"""Tells these lots from those of how a picture is varied, which come from the same seed and index."""


@dataclass(frozen=True)
class Mix:
    """What a sample is mixed with."""

    partner: int
    """Index of the second sample."""
    share: float
    """Of the first one, 0 to 1."""
    cut: bool
    """Whether a rectangle of the second one is set in, where not all is laid over each other."""
    middle: tuple[float, float] = (0.5, 0.5)
    """Of the rectangle, from the top and from the left, in shares of the picture's sides."""


class Mixing:
    """Draws what samples are mixed with.

    Parameters
    ----------
    options
        Of the task, with mixUp, cutMix or both.
    """

    def __init__(self, options: ImageClassificationSpec) -> None:
        self._lay, self._cut = options.mix_up, options.cut_mix

    def of(self, index: int, epoch_seed: int, samples: int, chances: np.ndarray | None = None) -> Mix:
        """Return what a sample is mixed with in an epoch.

        Parameters
        ----------
        index, epoch_seed
            Of the sample.
        samples
            Number of them.
        chances
            Probability of each to be the second one, summed up to it; alike without.
        """
        rng = np.random.default_rng([epoch_seed, index, _STREAM])
        lot = rng.random()
        partner = int(lot * samples) if chances is None else int(np.searchsorted(chances, lot * chances[-1], "right"))
        cut = self._cut is not None and (self._lay is None or rng.random() < 0.5)  # noqa: PLR2004 - half of them
        options = self._cut if cut else self._lay
        assert options is not None
        share = float(rng.beta(options.alpha, options.alpha))
        return Mix(min(partner, samples - 1), share, cut, (float(rng.random()), float(rng.random())))


def mixed(first: Tensor, second: Tensor, mix: Mix) -> tuple[Tensor, float]:
    """Return a picture of two, (channels, height, width), and the share of the first one in it.

    MixUp (Zhang et al. 2017) is their weighted mean. CutMix (Yun et al. 2019) sets a rectangle of the second one into the first, of
    the picture's form; what lies beyond the border is cut off, and the share is that of the pixels that are left.
    """
    if not mix.cut:
        return first * mix.share + second * (1 - mix.share), mix.share
    height, width = first.shape[-2:]
    (top, bottom), (left, right) = (
        _edges(side, mix.share, middle) for side, middle in zip((height, width), mix.middle, strict=True)
    )
    both = first.clone()
    both[:, top:bottom, left:right] = second[:, top:bottom, left:right]
    return both, 1 - (bottom - top) * (right - left) / (height * width)


def _edges(side: int, share: float, middle: float) -> tuple[int, int]:
    half, centre = int(side * math.sqrt(1 - share)) // 2, int(middle * side)
    return max(0, centre - half), min(side, centre + half)


def mixed_batch(images: Tensor, mixes: Sequence[Mix | None]) -> tuple[Tensor, Tensor]:
    """Return the mixed pictures of a batch whose second half are the partners of its first, and the shares of the first.

    Parameters
    ----------
    images
        (2 samples, channels, height, width).
    mixes
        Of each sample; None for one that stays as it is.
    """
    count = len(mixes)
    pairs = [
        (images[i], 1.0) if mix is None else mixed(images[i], images[count + i], mix) for i, mix in enumerate(mixes)
    ]
    return torch.stack([image for image, _ in pairs]), torch.tensor([share for _, share in pairs])
