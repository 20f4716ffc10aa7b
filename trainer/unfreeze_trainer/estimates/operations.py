"""How much a job computes: the operations of a forward pass, its seconds here, and how many of those all steps are worth."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unfreeze_trainer.features.cached import worth_it

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.feed import Feed
    from unfreeze_trainer.tasks import Batch, Task
    from unfreeze_trainer.training.plan import Plan

TRIED = 4
"""Batches whose forward pass is tried; the first one is slow, and does not count."""


def first_batches(feed: Feed, count: int) -> list[Batch]:
    """Return the first micro batches of a rank's training, as they will come but for what is drawn for each epoch."""
    steps = feed.steps(0, count)
    return list(itertools.islice((micro.tensors for _, micros in steps for micro in micros), count))


@torch.no_grad()
def forward_operations(module: nn.Module, task: Task, batch: Batch) -> float:
    """Return the operations of a sample's forward pass, with its padding.

    Multiplications and additions of matrices, convolutions and attention alone, as torch counts them.
    """
    module.eval()
    with FlopCounterMode(display=False) as counter:
        task.forward(module, batch)
    return counter.get_total_flops() / _samples(batch)


@torch.no_grad()
def forward_seconds(module: nn.Module, task: Task, batches: Sequence[Batch], *, half: bool, threads: int) -> float:
    """Return the seconds of a sample's forward pass on this machine, in bfloat16 or not, with so many threads."""
    module.eval()
    before, samples, seconds = torch.get_num_threads(), 0, 0.0
    torch.set_num_threads(threads)
    try:
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            for number, batch in enumerate(batches):
                began = time.perf_counter()
                task.forward(module, batch)
                if number or len(batches) == 1:
                    seconds += time.perf_counter() - began
                    samples += _samples(batch)
    finally:
        torch.set_num_threads(before)
    return seconds / samples


def passes_of(plan: Plan, job: ResolvedJob, task: Task, *, tested: int = 0) -> int:
    """Return about how many forward passes of a sample all phases of a job are worth, with their evaluations.

    Frozen blocks below the lowest that trains compute once for each sample, where their outputs can be kept: it is taken that they can.

    Parameters
    ----------
    tested
        Steps of a range test before them, which train like any other.
    """
    starts = {}
    if job.semantics.features == "Cached":
        for phase in plan.phases:
            lowest = next((number for number, name in enumerate(plan.blocks) if name in phase.trainable), 0)
            if lowest and "train" in worth_it(task, plan.reads_of(phase.index)):
                starts[phase.index] = lowest
    whole = replace(plan, starts=starts, held_out=task.splits["validation"])
    phases = whole.seconds_left(0, 0, work_seconds=1.0, evaluation_seconds=0.0, pass_seconds=1.0)
    return phases + round(tested * plan.samples / plan.steps_per_epoch * max(map(whole.step_work, plan.phases)))


def _samples(batch: Batch) -> int:
    return len(next(iter(batch.values())))
