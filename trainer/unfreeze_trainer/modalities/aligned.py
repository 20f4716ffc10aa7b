"""Several modalities of one sample, each read from a column of its own: in a batch their inputs stand side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
from unfreeze_trainer.data.pairings import part_of, read_pairings
from unfreeze_trainer.data.samples import DataSource, Split, target_kind
from unfreeze_trainer.modalities.base import Modality
from unfreeze_trainer.modalities.files import Files
from unfreeze_trainer.models.export import Example

_MASK = "text.attention_mask"


class Aligned(Modality):
    """Modalities by their names in small letters, in the order of the towers.

    Parameters
    ----------
    job
        Its data counts.
    parts
        What reads each of them.
    """

    def __init__(self, job: ResolvedJob, parts: Mapping[str, Modality]) -> None:
        super().__init__(job)
        self.parts = dict(parts)
        self._sources: dict[tuple[DataSource, str], DataSource] = {}

    def read(self, dataset: Dataset, where: str) -> DataSource:
        """Read a table with a column for each modality."""
        kind = target_kind(self.job)
        return read_pairings(dataset, where, modalities=[*self.parts], kind=kind, skip=self._skips)

    def open(self) -> None:
        """Prepare each of them."""
        for part in self.parts.values():
            part.open()

    def check(self, splits: Mapping[str, Split], rank: int, world_size: int) -> None:
        """Read this rank's share of the files, for some seconds at most."""
        for modality, part in self.parts.items():
            part.check({name: self._split(split, modality) for name, split in splits.items()}, rank, world_size)

    def name_of(self, source: DataSource, row: int) -> str:
        """Return what a JobError's message calls a sample: source and row."""
        return f"{source.where}: row {source.number(row)}"

    @property
    def remedy(self) -> str:
        """What to do about a model that fails at the samples."""
        return "; ".join(part.remedy for part in self.parts.values())

    def batches(
        self, split: Split, batches: Iterable[Sequence[int]], epoch_seed: int | None, unread: set[int]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with the inputs of all, named like text.input_ids."""
        yield from self._side_by_side(split, batches, list(self.parts), epoch_seed, unread)

    def remembered(
        self, split: Split, batches: Iterable[Sequence[int]]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with the inputs of those that lie in memory."""
        held = [modality for modality, part in self.parts.items() if not isinstance(part, Files)]
        if held:
            yield from self._side_by_side(split, batches, held, None, set())
        else:
            yield from super().remembered(split, batches)

    def _side_by_side(
        self,
        split: Split,
        batches: Iterable[Sequence[int]],
        modalities: Sequence[str],
        epoch_seed: int | None,
        unread: set[int],
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        each = [
            self.parts[modality].batches(self._split(split, modality), part, epoch_seed, unread)
            for modality, part in zip(modalities, tee(batches, len(modalities)), strict=True)
        ]
        for found in zip(*each, strict=True):
            inputs: dict[str, Tensor] = {}
            for modality, (_, own) in zip(modalities, found, strict=True):
                inputs |= {f"{modality}.{name}": tensor for name, tensor in own.items()}
            yield found[0][0], inputs

    def _split(self, split: Split, modality: str) -> Split:
        key = split.source, modality
        if key not in self._sources:
            self._sources[key] = part_of(split.source, modality)
        return replace(split, source=self._sources[key])

    def tokens(self, inputs: Mapping[str, Tensor], counted: Tensor) -> int:
        """Return how many tokens that are no padding the rows have that count."""
        return int(inputs[_MASK][counted].sum()) if _MASK in inputs else 0

    def samples(self, split: Split, count: int, inputs: Mapping[str, Tensor]) -> Any:  # noqa: ARG002 - as the data has them
        """Return the first samples by modality: texts, and pictures as uint8 of shape (height, width, channels)."""
        found: dict[str, list[Any]] = {}
        for modality, part in self.parts.items():
            source = self._split(split, modality).source
            cells = [part.raw(source, int(row)) for row in split.rows[:count]]
            found[modality] = [
                cell[0] if isinstance(cell, tuple) else torch.from_numpy(np.atleast_3d(np.array(cell)))
                for cell in cells
            ]
        return found

    @property
    def example(self) -> Example:
        """What lines that are shown need at their top."""
        return Example("", "\n".join(filter(None, (part.example.imports for part in self.parts.values()))))

    def save(self, folder: Path) -> None:
        """Write what turns the inputs of each into tensors, beside its encoder."""
        for modality, part in self.parts.items():
            part.save(folder / modality)
