"""Weights that a model has and never uses: found before the training, frozen, and watched while it lasts.

BigBird's classifier computes a pooler whose output nobody reads, ESM's has the head of another task, XLNet's a vector for
masked tokens. They get no gradient: an optimizer would only let them decay, DDP would wait for them for ever.

Notes
-----
That a class never uses a weight cannot be proven by running it: another batch may take another way. So it is taken for
granted where passes through training samples agree in all weights (two, or eight where the model draws lots), and a weight
that gets a gradient later trains from the next step on (`Unused.take_in`). Where passes differ (experts, layers that are left
out at random), all weights train, and steps without a gradient for some are expected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unfreeze_trainer.dry_run import Lots, gradients, on_gradient, traceless
from unfreeze_trainer.errors import JobError, some_of
from unfreeze_trainer.seeds import seed_everything

if TYPE_CHECKING:
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.phases.compile import Phase
    from unfreeze_trainer.phases.freezer import Freezer
    from unfreeze_trainer.progress import Events
    from unfreeze_trainer.state import State
    from unfreeze_trainer.tasks import Task

log = logging.getLogger(__name__)

_PASSES = 2
_PASSES_BY_CHANCE = 8
_SAMPLES = 2
"""Of a pass: some models take no batch of one."""


@dataclass(frozen=True)
class Evidence:
    """What passes through a model tell about the gradients of the parameters that a job trains."""

    unused: frozenset[str]
    """No pass gave them one, and all passes agree."""
    at_times: frozenset[str]
    """A pass gave them none, and passes differ."""
    by_chance: bool
    """Whether lots are drawn, so that any may be without one in some step."""


def find_unused(
    task: Task, module: nn.Module, names: Collection[str], *, autocast: Callable[[], AbstractContextManager[Any]]
) -> Evidence:
    """Run a few training samples forward and backward through a model, in training mode; nothing of it is left behind.

    BatchNorms use their running statistics: what gets a gradient does not depend on it, and they take any batch.

    Parameters
    ----------
    task
        Its first training samples are used.
    module
        Whole, on one device; no engine has taken it over.
    names
        Parameters that any phase trains.
    autocast
        Returns the context of a forward pass.

    Raises
    ------
    JobError
        InvalidModel: none of them gets a gradient.
    """
    device, samples = next(module.parameters()).device, task.splits["train"]
    sets = [[(_SAMPLES * number + i) % samples for i in range(_SAMPLES)] for number in range(_PASSES)]
    batches = [
        {key: tensor.to(device) for key, tensor in batch.items()} for batch in task.batches("train", sets, epoch_seed=0)
    ]

    def loss(batch: Mapping[str, Tensor]) -> Tensor:
        with lots, autocast():
            return task.loss(task.forward(module, batch), batch).sum()

    passes: list[frozenset[str]] = []
    with traceless(module):
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in names)
        module.train()
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the common base of all of them
                part.eval()
        lots = Lots()
        while len(passes) < (_PASSES_BY_CHANCE if lots.drawn else _PASSES):
            seed_everything(len(passes))
            passes.append(gradients(module, partial(loss, batches[len(passes) % _PASSES])))
    always, ever = frozenset.intersection(*passes), frozenset.union(*passes)
    if not ever:
        raise JobError(
            "InvalidModel",
            "none of the weights that the job trains gets a gradient: the model's outputs do not depend on them. Choose"
            " another model, or other blocks in spec.strategy",
        )
    lacking, agree = frozenset(names) - always, always == ever
    return Evidence(lacking if agree else frozenset(), frozenset() if agree else lacking, lots.drawn)


def agree_on_unused(engine: Engine, task: Task, module: nn.Module, names: Collection[str]) -> Evidence:
    """Find unused weights before an engine takes a module over, where it will lie: rank 0's evidence. Collective."""
    if not engine.divides:
        module.to(engine.device)
    evidence: Evidence = engine.broadcast_object(find_unused(task, module, names, autocast=engine.autocast))
    return evidence


class Unused:
    """Keeps the weights that get no gradient out of a run, until one does.

    Parameters
    ----------
    engine
        Has taken the module over.
    freezer
        Leaves them frozen.
    state
        Of the run: what it holds from a checkpoint stays.
    events
        Told of them, once in a run.
    evidence
        The same on every rank.
    """

    def __init__(self, engine: Engine, freezer: Freezer, state: State, events: Events, evidence: Evidence) -> None:
        self._engine, self._freezer, self._state, self._events = engine, freezer, state, events
        self._late: set[str] = set()
        self._handles: list[Any] = []
        if state.unused is None:
            state.unused, state.gradients_at_times = sorted(evidence.unused), sorted(evidence.at_times)
            self._tell()
        freezer.unused = frozenset(state.unused)
        if state.gradients_at_times or evidence.by_chance:
            engine.expect_missing(state.gradients_at_times)

    def _tell(self) -> None:
        assert self._state.unused is not None  # just set
        for event, names, what in (
            ("unusedParameters", self._state.unused, "get no gradient from this model, and stay as they are"),
            ("gradientsAtTimes", self._state.gradients_at_times, "get a gradient in some steps only"),
        ):
            if names:
                self._events.add(event, step=self._state.step, count=len(names), parameters=names)
                log.warning("%d parameters %s: %s", len(names), what, some_of(names))

    def watch(self, phase: Phase) -> None:
        """Have a gradient noticed that comes nevertheless to what the phase was to train. After an engine has begun it."""
        watched = self._freezer.unused & frozenset(self._freezer.chosen_names(phase))
        for handle in self._handles:
            handle.remove()
        self._handles = [
            on_gradient(parameter.requires_grad_(), partial(self._note, name))
            for name, parameter in self._engine.module.named_parameters()
            if name in watched
        ]

    def _note(self, name: str, parameter: Tensor) -> None:
        if parameter.grad is not None and parameter.grad.any():  # what is compiled may give zeros
            self._late.add(name)
        parameter.grad = None

    def late(self) -> list[str]:
        """Return those that have got a gradient on any rank. Collective in models that have unused weights."""
        names = sorted(self._freezer.unused)
        if not names:
            return []
        came = torch.tensor([float(name in self._late) for name in names])
        flags = self._engine.all_reduce(came, dist.ReduceOp.MAX).tolist()
        return [name for name, flag in zip(names, flags, strict=True) if flag]

    def take_in(self, late: list[str]) -> None:
        """Have all weights train from the next phase on that an engine begins, since this model chooses them by batch.

        Raises
        ------
        JobError
            The engine cannot train them.
        """
        state = self._state
        self._events.add("lateGradients", step=state.step, parameters=late)
        log.warning("step %d: %s: unused so far, trained from here on", state.step, some_of(late))
        state.gradients_at_times = sorted({*state.gradients_at_times, *self._freezer.unused})
        state.unused, self._freezer.unused = [], frozenset()
        self._late.clear()
        self._engine.expect_missing(state.gradients_at_times)
