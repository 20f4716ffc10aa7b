"""A step of a loss that couples its samples: each is compared with those of all workers and micro batches.

Notes
-----
Gradients are cached (GradCache, Gao et al. 2021, arXiv 2101.06983): the outputs of all samples are computed, gathered from
all workers, and the loss is taken of them alone; its gradient with respect to a sample's own outputs is then what goes
backward through the model, micro batch by micro batch. So a step is that of one process with the whole batch, however it is
divided, and memory holds the activations of one micro batch. Where there are several, the model computes each twice, with
the same random numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unfreeze_trainer.seeds import seed_everything

if TYPE_CHECKING:
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.feed import MicroBatch
    from unfreeze_trainer.models.hook import StepHook
    from unfreeze_trainer.tasks import Batch, Task


def coupled_step(
    engine: Engine, task: Task, hook: StepHook, micros: Iterable[MicroBatch], seeds: Sequence[int]
) -> Iterator[tuple[MicroBatch, Tensor]]:
    """Add the gradients of a step, yield each micro batch with the sum of its losses, detached. Collective.

    Parameters
    ----------
    engine, task, hook
        Of the run.
    micros
        Of the step, on this rank.
    seeds
        What the step's random numbers depend on.
    """
    micros = list(micros)
    batches = [engine.to_device(micro.tensors) for micro in micros]
    if len(micros) == 1:
        with engine.micro_step(last=True):
            outputs = task.forward(engine.model, batches[0])
            [(losses, gradient)] = _pull(engine, task, batches, [outputs], micros[0].scale)
            engine.backward((outputs.float() * gradient).sum() + hook.penalty(), last=True)
        yield micros[0], losses
        return
    seen = []
    for number, batch in enumerate(batches):
        seed_everything(*seeds, number)
        with torch.no_grad(), engine.autocast():
            seen.append(task.forward(engine.module, batch))
    pulled = _pull(engine, task, batches, seen, micros[0].scale)
    del seen
    for number, (micro, batch, (losses, gradient)) in enumerate(zip(micros, batches, pulled, strict=True)):
        seed_everything(*seeds, number)
        with engine.micro_step(last=micro.last):
            outputs = task.forward(engine.model, batch)
            penalty = hook.penalty() if micro.last else 0.0
            engine.backward((outputs.float() * gradient).sum() + penalty, last=micro.last)
        yield micro, losses


def _pull(
    engine: Engine, task: Task, batches: Sequence[Batch], outputs: Sequence[Tensor], scale: float
) -> list[tuple[Tensor, Tensor]]:
    """Return of each batch the sum of its losses, and their gradient at its outputs, 0 for padding. Collective.

    The mean over ranks of what all of them give is the gradient of the mean loss over the units of the step.
    """
    known = [task.coupled(batch) for batch in batches]
    kept = [rows.to(engine.device) for rows, _ in known]
    mine = torch.cat([each.detach().float()[rows] for each, rows in zip(outputs, kept, strict=True)])
    targets = torch.cat([each.to(engine.device)[rows] for (_, each), rows in zip(known, kept, strict=True)])
    first, total = engine.place_of(len(mine))
    everyone = engine.gather_rows(mine.flatten(1)).view(total, *mine.shape[1:]).requires_grad_()
    all_targets = engine.gather_rows(targets)
    with torch.enable_grad(), torch.autocast(engine.device.type, enabled=False):
        losses = task.coupled_losses(everyone, all_targets)
        (pull,) = torch.autograd.grad(losses.sum() * scale, everyone)
    own = slice(first, first + len(mine))
    counts = [int(rows.sum()) for rows in kept]
    parts = torch.split(losses.detach()[own], counts), torch.split(pull[own], counts)
    found = []
    for each, rows, loss, part in zip(outputs, kept, *parts, strict=True):
        gradient = torch.zeros_like(each, dtype=torch.float32)
        gradient[rows] = part
        found.append((loss.sum(), gradient))
    return found
