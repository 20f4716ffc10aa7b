"""A head that is one linear layer: where it is, and what it is given of each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze_trainer.objectives.answers import ABSENT
from unfreeze_trainer.objectives.base import TARGETS

if TYPE_CHECKING:
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.models.blocks import Block
    from unfreeze_trainer.tasks import Task

_CHECK_BATCHES = 4


@dataclass(frozen=True)
class LinearHead:
    """A linear layer above all else, by its place in the model."""

    path: str
    inputs: int
    outputs: int
    bias: bool

    @classmethod
    def of(cls, module: nn.Module, head: Block) -> LinearHead | str:
        """Return the head of a model that no engine has taken over, or why it is not one linear layer."""
        places = dict.fromkeys(name.rpartition(".")[0] for name in head.parameters)
        if len(places) != 1:
            return f"the head of this model is not one layer: {', '.join(places) or 'it has none'}"
        [path] = places
        layer = module.get_submodule(path)
        if not isinstance(layer, nn.Linear):
            return f"the head of this model, {path}, is not linear: {type(layer).__name__}"
        return cls(path, layer.in_features, layer.out_features, layer.bias is not None)

    def named(self, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """Return weights, of shape (outputs, inputs), and biases by the names of the model's parameters."""
        return {f"{self.path}.weight": weight} | ({f"{self.path}.bias": bias} if self.bias else {})

    @contextmanager
    def absent(self, module: nn.Module) -> Iterator[None]:
        """Have forward passes of a model, whatever wraps it, return what its head is given, in place of outputs."""
        parent, _, name = self.path.rpartition(".")
        children = module.get_submodule(parent)._modules  # noqa: SLF001 - to set an attribute would move it to the end
        layer = children[name]
        children[name] = nn.Identity()
        try:
            yield
        finally:
            children[name] = layer


@dataclass(frozen=True)
class Given:
    """What a head is given of the samples of a split, those that can be read, in their order, on the CPU."""

    vectors: Tensor
    """Float32 of shape (samples, inputs)."""
    targets: Tensor
    """As in batches."""
    samples: np.ndarray
    """Indices into the split."""

    def batch(self, rows: slice) -> Mapping[str, Tensor]:
        """Return the targets of some samples, as a batch has them."""
        return {TARGETS: self.targets[rows]}


@torch.no_grad()
def given(
    task: Task, engine: Engine, head: LinearHead, split: str, *, batch: int, beat: Callable[[int, int], None]
) -> Given | str:
    """Compute what a head is given of each sample of a split once; the ranks share them out, and each gets all. Collective.

    Parameters
    ----------
    task
        Its samples, cached or not.
    engine
        A phase has begun; the module is left in evaluation mode.
    head
        Of its module.
    split
        The inputs of its samples are the same each time.
    batch
        Samples of a forward pass.
    beat
        Called now and then with the samples that are done, and all; may raise, on every rank.

    Returns
    -------
    Given, or str
        Or why there is no vector for each sample, the same on every rank.
    """
    module, count = engine.module, task.splits[split]
    module.eval()
    order = np.argsort(task.lengths(split), kind="stable")[::-1]
    lists = [order[low : low + batch].tolist() for low in range(0, count, batch)]
    mine = lists[engine.rank :: engine.world_size]
    rounds = -(-len(lists) // engine.world_size)
    vectors, targets, foreign = torch.zeros(count, head.inputs), torch.zeros(0), ""
    seen = torch.zeros(count, dtype=torch.int64)
    for number, here in enumerate(task.batches(split, iter(mine + [[]] * (rounds - len(mine)))), 1):
        with engine.autocast(), head.absent(module):
            found = task.forward(module, engine.to_device(here))
        if foreign or found.shape != (len(here[TARGETS]), head.inputs):
            foreign = (
                foreign or f"its head, {head.path}, is not given one vector of {head.inputs} numbers for each sample"
            )
            continue
        if not len(targets):
            targets = here[TARGETS].new_zeros(count, *here[TARGETS].shape[1:])
        if number <= len(mine):
            _, states = task.keep(found, here)
            there = (states.cpu() != ABSENT).any(dim=1)
            places = torch.tensor(mine[number - 1])[there]
            vectors[places], targets[places] = found.float().cpu()[there], here[TARGETS][there]
            seen[places] = 1
        if number % _CHECK_BATCHES == 0:
            beat(min(number * batch * engine.world_size, count), count)
    if engine.any_rank(bool(foreign)):
        return foreign or "another worker's samples are given other vectors"
    kept = engine.all_reduce(seen).bool()  # what others have computed is 0 here
    whole, wanted = engine.all_reduce(vectors), engine.all_reduce(targets)
    return Given(whole[kept], wanted[kept], torch.nonzero(kept).flatten().numpy())
