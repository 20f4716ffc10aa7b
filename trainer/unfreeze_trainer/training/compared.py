"""What a model that joins modalities makes of training rows as it stands, with a stage and without: what belongs together, or a loss."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.judgement.stages import Probed
from unfreeze_trainer.objectives.base import IGNORED
from unfreeze_trainer.objectives.targets.pairings import ABSENT
from unfreeze_trainer.ranking.rank import MIN_ROWS, ROWS

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.tasks import Batch, Task

_BATCH, _WIDE = 32, 4
"""Samples at a time, and of those whose outputs are wide."""
_SPLIT = "train"


def compared(before: ResolvedJob, after: ResolvedJob, open_task: Callable[[ResolvedJob], Task]) -> Probed:
    """Compare two models of one job on up to 1,000 of its training rows, which training.seed draws.

    Parameters
    ----------
    before, after
        The job with each.
    open_task
        Opens the task of a job.

    Raises
    ------
    JobError
        InvalidData: too few of the rows can be read.
    """
    began = time.perf_counter()
    without, with_stage = (_said(job, open_task(job)) for job in (before, after))
    read = without.read & with_stage.read
    if read.sum() < MIN_ROWS:
        raise JobError(
            "InvalidData",
            f"spec.data.train: {read.sum()} of the {len(read)} rows that tell whether a stage helps can be read: correct the others,"
            f" {MIN_ROWS} are needed",
        )
    return Probed.of_rows(
        with_stage.scores[read],
        without.scores[read],
        units=without.units[read],
        groups=without.groups[read],
        figure="recallAt1" if without.couples else "loss",
        seconds=time.perf_counter() - began,
    )


@dataclass(frozen=True)
class _Said:
    """What a model makes of some rows."""

    scores: np.ndarray
    """Of each row, summed over its units: whether what belongs to it is found, or the loss of its tokens; float64."""
    units: np.ndarray
    read: np.ndarray
    """Which rows could be read, bool."""
    groups: np.ndarray
    couples: bool


@torch.no_grad()
def _said(job: ResolvedJob, task: Task) -> _Said:
    total = task.splits[_SPLIT]
    rows = np.sort(np.random.default_rng(job.training.seed).permutation(total)[:ROWS])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = task.build_model().module.to(device).eval()
    scores, units = np.zeros(len(rows)), np.zeros(len(rows))
    read, where = np.zeros(len(rows), dtype=bool), list[np.ndarray]()
    vectors, cells = list[Tensor](), list[Tensor]()
    for places, batch in _batches(task, rows, device):
        outputs = task.forward(module, batch)
        if not task.couples:
            learned = (task.answers_at(batch) != IGNORED).flatten(1).sum(dim=1)
            scores[places] = task.loss(outputs, batch).double().cpu().numpy()
            units[places], read[places] = learned.cpu().numpy(), (learned > 0).cpu().numpy()
            continue
        counted, targets = task.coupled(batch)
        where.append(places[counted.cpu().numpy()])
        vectors.append(outputs.float()[counted].cpu())
        cells.append(targets[counted].cpu())
    finite = np.isfinite(scores).all() and all(part.isfinite().all() for part in vectors)
    if not finite:
        raise JobError(
            "InvalidModel",
            f"{job.model.described}: on the job's training rows the model gives numbers that are not finite: its weights are broken",
        )
    if task.couples:
        found, there = torch.cat(vectors), np.concatenate(where)
        scores[there], units[there] = _hits(found, torch.cat(cells)[:, : found.shape[1]])
        read = units > 0
    return _Said(scores, units, read, task.groups(_SPLIT)[rows], task.couples)


def _batches(task: Task, rows: np.ndarray, device: torch.device) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield the rows on a device, with their places among all, those of alike length together."""
    order, size = np.argsort(-task.lengths(_SPLIT)[rows], kind="stable"), _WIDE if task.wide_outputs else _BATCH
    lists = [order[low : low + size] for low in range(0, len(order), size)]
    found = task.batches(_SPLIT, (rows[places].tolist() for places in lists))
    for places, batch in zip(lists, found, strict=True):
        yield places, {name: tensor.to(device) for name, tensor in batch.items()}


def _hits(vectors: Tensor, cells: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each row's cells find one that belongs to them as the nearest of all rows, and how often they look for one.

    Parameters
    ----------
    vectors, cells
        Of each row and modality, (rows, modalities, width), all equally long, and the numbers of its cells, (rows, modalities).
    """
    hits, asked = np.zeros(len(cells)), np.zeros(len(cells))
    for one, other in combinations(range(cells.shape[1]), 2):
        both = ((cells[:, one] != ABSENT) & (cells[:, other] != ABSENT)).nonzero()[:, 0]
        pairs = {(int(mine), int(theirs)) for mine, theirs in cells[both][:, [one, other]].tolist()}
        for asks, told in ((one, other), (other, one)) if len(both) else ():
            nearest = both[(vectors[both, asks] @ vectors[both, told].T).argmax(dim=1)]
            for row, found in zip(both.tolist(), nearest.tolist(), strict=True):
                mine, theirs = int(cells[row, asks]), int(cells[found, told])
                hits[row] += ((mine, theirs) if asks == one else (theirs, mine)) in pairs
                asked[row] += 1
    return hits, asked
