"""What a loss that compares samples holds, on shapes alone: which rows belong together depends on values, so each is its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

from unfreeze_trainer.models.bridge import PRESENT
from unfreeze_trainer.objectives.base import TARGETS

if TYPE_CHECKING:
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.tasks import Batch, Task


class Joined:
    """A task whose samples are compared: whatever is not about losses and batches is its own.

    Parameters
    ----------
    task
        Its loss couples its samples.
    several
        Whether it has several encoders, whose own losses look at values; those of other tasks run on shapes.
    """

    def __init__(self, task: Task, *, several: bool) -> None:
        self._task, self._several = task, several

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of each sample among all."""
        return self.coupled_losses(outputs.float(), batch[TARGETS])

    def coupled_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each sample among all of a step. Parameters as of Task."""
        return compared(outputs) if self._several else self._task.coupled_losses(outputs, targets)

    def batches(self, *arguments: Any, **options: Any) -> Iterator[Batch]:
        """Yield batches as if no row lacked anything, which takes the most."""
        for batch in self._task.batches(*arguments, **options):
            yield {name: tensor for name, tensor in batch.items() if not name.endswith(f".{PRESENT}")}


def compared(outputs: Tensor) -> Tensor:
    """Return the loss of each row among all others, float32 of shape (rows,); `outputs` are (rows, modalities, width)."""
    own = torch.arange(len(outputs), device=outputs.device)
    found = outputs.sum(dim=(1, 2)) * 0
    for one, other in combinations(range(outputs.shape[1]), 2):
        scores = outputs[:, one] @ outputs[:, other].T
        for way in (scores, scores.T):
            found = found + functional.cross_entropy(way, own, reduction="none")
    return found


@contextmanager
def every_row() -> Iterator[None]:
    """Have a step compare all rows of all ranks, without a look at which are padding."""
    with patch("unfreeze_trainer.training.coupled._pull", _pull):
        yield


def _pull(
    engine: Engine,
    task: Task,
    batches: Sequence[Batch],
    outputs: Sequence[Tensor],
    scale: float,  # noqa: ARG001 - as of training.coupled
) -> list[tuple[Tensor, Tensor]]:
    rows = sum(map(len, outputs)) * engine.world_size
    everyone = outputs[0].new_zeros(rows, *outputs[0].shape[1:], dtype=torch.float32).requires_grad_()
    targets = batches[0][TARGETS].new_zeros(rows, *batches[0][TARGETS].shape[1:])
    with torch.enable_grad(), torch.autocast(engine.device.type, enabled=False):
        torch.autograd.grad(task.coupled_losses(everyone, targets).sum(), everyone)
    return [(each.new_zeros(()), torch.zeros_like(each, dtype=torch.float32)) for each in outputs]
