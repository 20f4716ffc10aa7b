"""Where the forward pass of each phase can start, found before an engine takes the model over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze_trainer.data.tokens import trimmed
from unfreeze_trainer.features.cached import MIN_READS, has_room
from unfreeze_trainer.features.cut import MASK, length_of
from unfreeze_trainer.features.find import Probe, find_cut
from unfreeze_trainer.features.keys import cut_key
from unfreeze_trainer.models.blocks import LAYER
from unfreeze_trainer.objectives.base import IGNORED, TARGETS
from unfreeze_trainer.phases.sharing import shared_cuts
from unfreeze_trainer.training.dry_run import traceless

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.features.cut import Batch, Cut
    from unfreeze_trainer.features.reuse import Place
    from unfreeze_trainer.models import LoadedModel
    from unfreeze_trainer.models.blocks import Block
    from unfreeze_trainer.phases.compile import Phase
    from unfreeze_trainer.phases.freezer import Freezer
    from unfreeze_trainer.tasks import Task
    from unfreeze_trainer.training.plan import Plan

log = logging.getLogger(__name__)


def find_cuts(
    job: ResolvedJob,
    task: Task,
    loaded: LoadedModel,
    *,
    phases: Sequence[Phase],
    freezer: Freezer,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[int, Cut]:
    """Return the cuts of phases, by index: of those in which a whole layer or more computes the same each time.

    Parameters
    ----------
    job
        Whether there is a cache is its semantics'.
    task
        Two batches of its training samples are tried.
    loaded
        Whole, where it will compute.
    phases, freezer
        Of the job.
    autocast
        Returns the context of a forward pass.
    """
    if job.semantics.features != "Cached" or not any(map(task.repeats, task.splits)):
        return {}
    found: dict[int, Cut] = {}
    trained: set[str] = set()
    layers = [block for block in loaded.blocks if block.name.startswith(LAYER)] or loaded.blocks[:1]
    lowest = loaded.locked or {*layers[0].parameters}  # what never trains is worth as much as a layer
    with traceless(loaded.module):
        batches = _batches(task, next(loaded.module.parameters()).device)
        if len({*_lengths(task)}) > 1 and _columns(batches[0]) == _columns(batches[1]):
            batches = [_trimmed(batch) for batch in batches]
            if _columns(batches[0]) == _columns(batches[1]):
                log.info(
                    "all blocks compute in each step: the training samples do not tell what depends on their length"
                )
                return {}
        for phase in phases:
            trained |= {*freezer.chosen_names(phase)}
            if not trained.isdisjoint(lowest):
                break
            freezer.apply(phase)
            cut = _cut(task, loaded, batches, autocast)
            if isinstance(cut, str):
                log.info("phase %s computes all blocks in each step: %s", phase.name, cut)
            elif (skipped := cut.parameters(loaded.module)) >= lowest and skipped.isdisjoint(trained):
                found[phase.index] = cut
            else:
                log.info(
                    "phase %s computes all blocks in each step: no whole layer lies below %s, and no higher place gives all that the rest reads",
                    phase.name,
                    cut.path,
                )
    return found


def share_cuts(
    cuts: Mapping[int, Cut],
    plan: Plan,
    task: Task,
    module: nn.Module,
    blocks: Sequence[Block],
    *,
    place: Place | None,
    any_rank: Callable[[bool], bool] = bool,
) -> tuple[dict[int, Cut], Plan]:
    """Give phases that follow each other one cut, the lowest of theirs, where that spares more; return cuts and plan with it. Collective.

    Rungs do not share, of which nobody knows how many there will be, nor does a head that is solved: it reads vectors. Nor is a cut shared
    that there is no room for: low in a network of pictures it takes a hundred times what those above take, and these would be lost too.

    Parameters
    ----------
    cuts
        By phase, as of `find_cuts`.
    plan
        Of the same phases.
    task
        Whether its training samples are the same each time.
    module, blocks
        Whole.
    place
        As of `CachedTask`.
    any_rank
        As of an engine, where there is one.
    """
    if not task.repeats("train"):
        return {**cuts}, plan
    shares: list[float | None] = []
    for phase in plan.phases:
        cut = None if phase.rung or phase.solved else cuts.get(phase.index)
        fits = cut is not None and not any_rank(not has_room(task, cut, place))
        shares.append(plan.share_below(len(cut.blocks(module, blocks))) if cut and fits else None)
    reads = [plan.reads_left(phase.first_step, phase.index)["train"] for phase in plan.phases]
    takes = dict(enumerate(shared_cuts(shares, reads, fewest=MIN_READS)))
    return {index: cuts[takes[index]] for index in cuts}, replace(plan, shared=takes)


def keys_of(
    job: ResolvedJob,
    module: nn.Module,
    cuts: Mapping[int, Cut],
    *,
    phases: Sequence[Phase],
    freezer: Freezer,
    computed: str,
) -> dict[int, str]:
    """Return the hash of what each cut's values depend on, by phase; none where nothing is kept beyond the job.

    Nothing is of random weights, and of quantised ones, whose tensors do not say all.

    Parameters
    ----------
    module
        Whole, as it was loaded.
    computed
        As of `computes`.
    """
    if job.cache is None or job.model.quantization or job.model.initialization == "Random":
        return {}
    found, known, trained = dict[int, str](), dict[str, str](), set[str]()
    for phase in phases:
        trained |= {*freezer.chosen_names(phase)}
        if cut := cuts.get(phase.index):
            key = cut_key(module, cut, trained=trained, computed=computed, known=known)
            found |= {index: key for index, other in cuts.items() if other is cut}  # of the last phase that has it
    return found


def agreed(cuts: dict[int, Cut], engine: Engine) -> dict[int, Cut]:
    """Return cuts that all ranks have found, none where they differ. Collective."""
    known = {str(index): cut.path for index, cut in cuts.items()}
    return cuts if all(each == known for each in engine.gather_json(known, dict[str, str])) else {}


def _cut(
    task: Task, loaded: LoadedModel, batches: Sequence[Batch], autocast: Callable[[], AbstractContextManager[Any]]
) -> Cut | str:
    """Return the topmost cut of a model whose phase has been applied, or why there is none."""

    def forward(batch: Batch) -> Tensor:
        with autocast():
            return task.forward(loaded.module, batch)

    [(_, known)] = task.remembered("train", [[0]])
    inputs = sorted(batches[0].keys() - known.keys())
    return find_cut(Probe(loaded.module, batches, forward, inputs, partial(task.forward, loaded.module)))


def _batches(task: Task, device: torch.device) -> list[Batch]:
    """Return two batches of other sizes, and lengths if there are any, that have their last sample in common."""
    lengths = task.lengths("train")
    longest, shortest = int(np.argmax(lengths)), int(np.argmin(lengths))
    found = task.batches("train", [[longest, shortest], [shortest] * 3])
    return [{name: tensor.to(device) for name, tensor in batch.items()} for batch in found]


def _columns(batch: Batch) -> int:
    """Return how long a batch's samples are with their padding, or, where they have no lengths, what is learned of them."""
    return length_of(batch) or batch[TARGETS].shape[-1]


def _trimmed(batch: Batch) -> Batch:
    """Return a batch without columns that hold nothing but padding, so that other lengths are other shapes."""
    return trimmed(batch, batch[MASK] if MASK in batch else batch[TARGETS] != IGNORED)


def _lengths(task: Task) -> Iterator[int]:
    """Yield the shortest and the longest length of each split."""
    for split in task.splits:
        lengths = task.lengths(split)
        yield from (int(lengths.min()), int(lengths.max()))
