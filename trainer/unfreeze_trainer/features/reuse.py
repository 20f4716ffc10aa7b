"""What a job takes from the rows that outlive it, and gives to them."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from unfreeze_trainer.features.kept import PART, Kept
from unfreeze_trainer.features.keys import lengths, row_keys
from unfreeze_trainer.features.memory import Row, decoded, encoded

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.features.cut import Batch, Cut
    from unfreeze_trainer.tasks import Task

log = logging.getLogger(__name__)

_ROUNDING = {torch.float16: 5e-2, torch.bfloat16: 5e-2}
_ROUNDING_FLOAT32 = 1e-3
"""What a row may differ by from what is computed now, as a share of its norm, by the type of the computation, which need not be the row's:
batches of other sizes, other processors."""
COMPARED = 16
"""Rows of each split and rank that are computed and compared."""
_LOOKED_AT, _BATCH = 512, 64
"""Samples by which people are told how many are kept."""


@dataclass(frozen=True)
class Place:
    """Where rows are kept beyond a job."""

    folder: Path
    limit: int
    """Bytes."""
    scratch_limit: int | None = None
    """Bytes that the pod may write to its own disk; None where nobody says."""

    @classmethod
    def of(cls, job: ResolvedJob) -> Place | None:
        """Return that of a job, None without one."""
        return cls(Path(job.cache.path), job.cache.max_bytes, job.cache.scratch_bytes) if job.cache else None


def share_kept(place: Place, key: str, task: Task) -> float:
    """Return which share of the first training samples is kept for a cut; nothing is changed there."""
    kept = Kept(place.folder, key, place.limit, looks=True)
    if not len(kept):
        return 0.0
    count = min(_LOOKED_AT, task.splits["train"])
    lists = [list(range(low, min(low + _BATCH, count))) for low in range(0, count, _BATCH)]
    found = [known in kept for batch in task.batches("train", iter(lists)) for known in row_keys(batch)]
    kept.close()
    return sum(found) / len(found)


class Reuse:
    """Rows of one cut.

    Some rows of each split, drawn by lot, are computed all the same: where one differs by more than rounding, whatever the key has
    forgotten or somebody has written there, nothing is taken any more.

    Parameters
    ----------
    place
        Where they lie.
    key
        Of the cut.
    cut
        Says what a row is.
    computed
        Type of the computation.
    """

    def __init__(self, place: Place, key: str, cut: Cut, computed: torch.dtype = torch.float32) -> None:
        self._kept, self._cut, self._place = Kept(place.folder, key, place.limit), cut, place
        self._rounding = _ROUNDING.get(computed, _ROUNDING_FLOAT32)
        self._keys: list[bytes] = []
        self._before: list[int] = []
        self._compares = True
        self.taken = 0
        """Samples of the newest split whose rows were here before."""

    def draw(self, lists: list[list[int]]) -> None:
        """Move one of the lists of samples to the front, by lot: rows of the first one that has some here are compared.

        Where nothing is here they keep their order, and what is computed together is the same each time.
        """
        self._compares, self.taken = True, 0
        if lists and len(self._kept):
            lists.insert(0, lists.pop(random.SystemRandom().randrange(len(lists))))

    def find(self, batch: Batch) -> dict[int, Row]:
        """Return what there is of a batch on the CPU, by place."""
        self._keys = row_keys(batch)
        found: dict[int, Row] = {}
        self._before = []
        for place, (key, length) in enumerate(zip(self._keys, lengths(batch, len(self._keys)), strict=True)):
            data = self._kept.get(key, self._cut.row_bytes(length))
            row = None if data is None else decoded(data, self._cut.shapes, length)
            if row is not None:
                found[place] = row
                if not self._kept.added(key):
                    self._before.append(place)
        self.taken += len(self._before)
        return found

    def draw_places(self) -> list[int]:
        """Return the places of rows of the newest batch that are to be computed and compared: none once a split has had its own."""
        if not self._compares or not self._before:
            return []
        self._compares = False
        drawn = random.SystemRandom().sample(self._before, min(COMPARED, len(self._before)))
        self.taken -= len(drawn)
        return sorted(drawn)

    def holds(self, found: Mapping[int, Row], computed: Mapping[int, Row]) -> bool:
        """Return whether rows that were found are what has been computed; where they are not, all that is there is taken away."""
        if all(
            _alike(before, now, self._rounding)
            for place, row in computed.items()
            for before, now in zip(found[place], row, strict=True)
        ):
            return True
        log.warning(
            "the cache %s does not have what the frozen blocks compute: nothing is taken from it, and %s of it is not used again",
            self._place.folder,
            self._kept.name,
        )
        self._kept.discard()
        self.taken -= len(self._before) - len(computed)
        return False

    def keep(self, rows: Mapping[int, Row]) -> dict[int, Row]:
        """Keep rows that were computed of the newest batch; return them by place, those of equal samples with the same bits."""
        first = {self._keys[place]: row for place, row in reversed(list(rows.items()))}
        for key, row in first.items():
            self._kept.add(key, encoded(row))
        self._kept.flush(PART)  # between batches: what is computed together is kept together
        return {place: first[self._keys[place]] for place in rows}

    def tell(self, split: str, samples: int) -> None:
        """Say how many rows of a split were taken."""
        log.info(
            "outputs of frozen blocks: of %d %s samples %d were in the cache %s",
            samples,
            split,
            self.taken,
            self._place.folder,
        )

    def close(self) -> None:
        """Write what is left, and let go of the files."""
        self._kept.close()


def _alike(before: torch.Tensor, now: torch.Tensor, share: float) -> bool:
    difference = (before.double() - now.double()).norm()
    return bool(difference <= share * now.double().norm())
