"""What is cached of a split's samples, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from unfreeze_trainer.features.cut import Shape

Row = tuple[Tensor, ...]
_PART = 64 * 2**20
"""Bytes of rows that go from one worker to the others at a time."""


class Rows:
    """Values of samples by index.

    Parameters
    ----------
    samples
        Of the split.
    shapes
        Of the tensors of each.
    """

    def __init__(self, samples: int, shapes: Sequence[Shape]) -> None:
        self._rows: list[Row | None] = [None] * samples
        self._shapes = shapes
        self.bytes = 0
        self.count = 0
        """Samples that there are."""

    def __getitem__(self, index: int) -> Row:
        row = self._rows[index]
        assert row is not None
        return row

    def add(self, indices: Sequence[int], rows: Sequence[Row]) -> None:
        """Keep the rows of samples, on the CPU."""
        for index, row in zip(indices, rows, strict=True):
            self.count += self._rows[index] is None
            self._rows[index] = kept = tuple(value.detach().to("cpu") for value in row)
            self.bytes += sum(value.nbytes for value in kept)

    def packed(self, indices: Sequence[int]) -> Iterator[dict[str, Tensor]]:
        """Yield rows as few tensors: indices, lengths, and each tensor's numbers one after the other."""
        part: list[int] = []
        size = 0
        for index in indices:
            part.append(index)
            if (size := size + sum(value.nbytes for value in self[index])) >= _PART:
                yield self._pack(part)
                part, size = [], 0
        if part:
            yield self._pack(part)

    def _pack(self, indices: Sequence[int]) -> dict[str, Tensor]:
        rows = [self[index] for index in indices]
        packed = {"indices": torch.tensor(indices)}
        for number, shape in enumerate(self._shapes):
            values = [row[number] for row in rows]
            packed[str(number)] = torch.cat(values) if shape.padded else torch.stack(values)
            packed[f"lengths.{number}"] = (
                torch.tensor([len(value) for value in values]) if shape.padded else torch.empty(0)
            )
        return packed

    def unpack(self, packed: dict[str, Tensor]) -> None:
        """Keep what another worker has packed."""
        parts = []
        for number, shape in enumerate(self._shapes):
            values = packed[str(number)]
            parts.append(torch.split(values, packed[f"lengths.{number}"].tolist()) if shape.padded else values.unbind())
        self.add(packed["indices"].tolist(), list(zip(*parts, strict=True)))
