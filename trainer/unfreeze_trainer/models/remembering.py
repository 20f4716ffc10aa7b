"""Encoders that compute equal inputs once, while they are asked to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Remembering(nn.Module):
    """What runs one or more encoders, each of which gives a tensor whose rows are the samples."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: Callable[[Mapping[str, Tensor]], list[bytes]] | None = None
        self._known: dict[tuple[str, bytes], Tensor] = {}

    @contextmanager
    def remembering(self, keys: Callable[[Mapping[str, Tensor]], list[bytes]]) -> Iterator[None]:
        """Have each encoder compute equal inputs once, as long as it is in evaluation mode: a picture may stand in many rows.

        Parameters
        ----------
        keys
            Returns a hash of each sample's inputs, which are on the CPU.
        """
        self._keys = keys
        try:
            yield
        finally:
            self._keys = None
            self._known.clear()

    def _of_new(
        self, name: str, features: Callable[[Mapping[str, Tensor]], Tensor], inputs: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the features of inputs by an encoder of some name, of which those that are new are computed."""
        assert self._keys is not None
        keys = [(name, key) for key in self._keys({part: tensor.cpu() for part, tensor in inputs.items()})]
        new: dict[tuple[str, bytes], int] = {}
        for row, key in enumerate(keys):
            if key not in self._known:
                new.setdefault(key, row)
        rows = list(new.values()) or [0]  # one at least: what divides weights has all ranks compute alike
        values = features({part: tensor[rows] for part, tensor in inputs.items()})
        self._known |= zip(new, values.detach().cpu(), strict=False)
        return torch.stack([self._known[key] for key in keys]).to(values)
