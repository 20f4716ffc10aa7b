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
from unfreeze_trainer.data.pairings import absent, part_of, read_pairings
from unfreeze_trainer.data.samples import DataSource, Split, target_kind
from unfreeze_trainer.modalities.audio import Audio
from unfreeze_trainer.modalities.base import Modality, rows_of
from unfreeze_trainer.modalities.files import Files
from unfreeze_trainer.models.bridge import PRESENT
from unfreeze_trainer.models.export import Example

_MASK = "text.attention_mask"


class Aligned(Modality):
    """What the towers of a bridge read, by their names, in their order.

    Parameters
    ----------
    job
        Its data counts.
    parts
        What reads for each of them.
    modalities
        What each reads, in small letters.
    """

    def __init__(self, job: ResolvedJob, parts: Mapping[str, Modality], modalities: Mapping[str, str]) -> None:
        super().__init__(job)
        self.parts = dict(parts)
        self.modalities = dict(modalities)
        for part in self.parts.values():
            part.warnings = self.warnings
        self._sources: dict[tuple[DataSource, str], tuple[DataSource, np.ndarray | None]] = {}

    def read(self, dataset: Dataset, where: str) -> DataSource:
        """Read a table with a column for each modality."""
        kind = target_kind(self.job)
        read = [*dict.fromkeys(self.modalities.values())]
        return read_pairings(dataset, where, modalities=read, kind=kind, skip=self._skips)

    def open(self) -> None:
        """Prepare each of them."""
        for part in self.parts.values():
            part.open()

    def check(self, splits: Mapping[str, Split], rank: int, world_size: int) -> None:
        """Read this rank's share of the files, for some seconds at most."""
        for tower, part in self.parts.items():
            part.check({name: self.split_of(split, tower) for name, split in splits.items()}, rank, world_size)

    @property
    def made_to_hear(self) -> int | None:  # type: ignore[override]
        """Seconds of each clip that an encoder was made to hear."""
        return next((one.made_to_hear for one in self.parts.values() if one.made_to_hear), None)

    @property
    def remedy(self) -> str:
        """What to do about a model that fails at the samples."""
        return " ".join(f"{part.remedy.rstrip('.')}." for part in self.parts.values())

    def batches(
        self, split: Split, batches: Iterable[Sequence[int]], epoch_seed: int | None, unread: set[int]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with the inputs of all, named like text.input_ids."""
        yield from self._side_by_side(split, batches, list(self.parts), epoch_seed, unread)

    def remembered(
        self, split: Split, batches: Iterable[Sequence[int]]
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Yield each list of indices with the inputs of those that lie in memory."""
        held = [tower for tower, part in self.parts.items() if not isinstance(part, Files)]
        if held:
            yield from self._side_by_side(split, batches, held, None, set())
        else:
            yield from super().remembered(split, batches)

    def _side_by_side(
        self,
        split: Split,
        batches: Iterable[Sequence[int]],
        towers: Sequence[str],
        epoch_seed: int | None,
        unread: set[int],
    ) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        each = [
            self.parts[tower].batches(self.split_of(split, tower), part, epoch_seed, unread)
            for tower, part in zip(towers, tee(batches, len(towers)), strict=True)
        ]
        for found in zip(*each, strict=True):
            inputs: dict[str, Tensor] = {}
            for tower, (indices, own) in zip(towers, found, strict=True):
                inputs |= {f"{tower}.{name}": tensor for name, tensor in own.items()}
                _, without = self._part(split.source, tower)
                if without is not None:
                    there = ~without[rows_of(split, indices)] if len(indices) else np.ones(1, dtype=bool)
                    inputs[f"{tower}.{PRESENT}"] = torch.from_numpy(there)
            yield found[0][0], inputs

    def _part(self, source: DataSource, tower: str) -> tuple[DataSource, np.ndarray | None]:
        """Return what a tower reads of a source, and which rows lack it; None where none does."""
        key = source, self.modalities[tower]
        if key not in self._sources:
            without = absent(source, key[1])
            self._sources[key] = part_of(source, key[1]), without if without.any() else None
        return self._sources[key]

    def split_of(self, split: Split, tower: str) -> Split:
        """Return a split with what a tower reads alone; in the place of what a row lacks stands another row's."""
        return replace(split, source=self._part(split.source, tower)[0])

    def tokens(self, inputs: Mapping[str, Tensor], counted: Tensor) -> int:
        """Return how many tokens that are no padding the rows have that count."""
        if _MASK not in inputs:
            return 0
        counted = counted & inputs.get(f"text.{PRESENT}", counted)
        return int(inputs[_MASK][counted].sum())

    def samples(self, split: Split, count: int, inputs: Mapping[str, Tensor]) -> Any:
        """Return the first samples by modality: texts, pictures as uint8 of shape (height, width, channels), clips of (values,)."""
        found: dict[str, list[Any]] = {}
        for modality, part in self._first.items():
            own = self.split_of(split, modality)
            if isinstance(part, Audio):
                found[modality] = part.samples(own, count, inputs)
                continue
            source = own.source
            cells = [part.raw(source, int(row)) for row in split.rows[:count]]
            found[modality] = [
                cell[0] if isinstance(cell, tuple) else torch.from_numpy(np.atleast_3d(np.array(cell)))
                for cell in cells
            ]
        return found

    @property
    def example(self) -> Example:
        """What lines that are shown need at their top."""
        shown = [part.example for part in self._first.values()]
        before = "".join(one.before for one in shown)
        return Example("", "\n".join(filter(None, (one.imports for one in shown))), before)

    @property
    def _first(self) -> dict[str, Modality]:
        """What reads for the first tower of each modality, which has its name."""
        return {tower: part for tower, part in self.parts.items() if tower == self.modalities[tower]}

    def save(self, folder: Path) -> None:
        """Write what turns the inputs of each into tensors, beside its encoder."""
        for tower, part in self.parts.items():
            part.save(folder / tower)
