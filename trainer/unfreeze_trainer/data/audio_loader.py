"""The way from a clip's file to what a model reads: features of the clip alone, padded to the longest of its batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unfreeze_trainer.data.audio import CLIPS
from unfreeze_trainer.data.clips import ClipError, decode
from unfreeze_trainer.data.file_loader import FileLoader

MASK = "attention_mask"


class AudioLoader(FileLoader[np.ndarray, dict[str, Tensor], dict[str, Tensor]]):
    """Makes batches of clips.

    Parameters
    ----------
    extractor
        The model's feature extractor: it is given one clip at a time, since of several it may make features that depend on
        their padding.
    shortest, longest
        Values that a clip may have, at the extractor's rate: shorter ones are refused, longer ones cut.
    padded
        Length along the first axis that a batch has at least; None where the extractor gives all clips one length, and the
        model takes no mask.
    """

    kind = CLIPS

    def __init__(self, extractor: Any, *, shortest: int, longest: int, padded: int | None) -> None:
        self._extractor, self._padded = extractor, padded
        self.rate: int = extractor.sampling_rate
        self._shortest, self._longest = shortest, longest
        self.loudest = 0.0
        """Of all values that were decoded, without their sign."""

    def decode(self, content: str | bytes) -> np.ndarray:
        """Return a clip at the model's rate, float32 of shape (values,); ClipError if it cannot be read."""
        values = decode(content, self.rate, self._longest)
        self.loudest = max(self.loudest, float(np.abs(values).max(initial=0.0)))
        if len(values) < self._shortest:
            raise ClipError(
                f"it lasts {len(values) / self.rate:.3g} seconds, and the model hears nothing in less than"
                f" {self._shortest / self.rate:.3g}; replace or remove it"
            )
        return values

    def prepare(self, opened: np.ndarray, index: int, epoch_seed: int | None) -> dict[str, Tensor]:  # noqa: ARG002 - not varied
        """Return what the model reads of a clip, by name, without an axis for samples; a mask where it takes one."""
        features = self._extractor(opened, sampling_rate=self.rate, return_tensors="np")
        found = {name: torch.from_numpy(np.asarray(values[0])) for name, values in features.items()}
        if self._padded is None:
            found.pop(MASK, None)
        else:
            [longest] = {len(values) for values in found.values()}
            found.setdefault(MASK, torch.ones(longest, dtype=torch.int64))
        return found

    @property
    def silence(self) -> np.ndarray:
        """What stands in the place of a clip that there is none of, float32 of shape (values,)."""
        return np.zeros(self._shortest, dtype=np.float32)

    def blank(self) -> dict[str, Tensor]:
        """Return what the model reads of a moment of silence."""
        return self.prepare(self.silence, 0, None)

    def gather(self, prepared: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the batch of some clips, padded with zeros: the mask says where."""
        batch = {name: [clip[name] for clip in prepared] for name in prepared[0]}
        if self._padded is None:
            return {name: torch.stack(clips) for name, clips in batch.items()}
        length = max(self._padded, *(len(clip[MASK]) for clip in prepared))
        return {name: torch.stack([_padded(clip, length) for clip in clips]) for name, clips in batch.items()}


def _padded(values: Tensor, length: int) -> Tensor:
    return functional.pad(values, (0, 0) * (values.ndim - 1) + (0, length - len(values)))
