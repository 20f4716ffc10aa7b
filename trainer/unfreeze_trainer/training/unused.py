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

import copy
import logging
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unfreeze_trainer.errors import JobError, some_of
from unfreeze_trainer.training.dry_run import on_gradient, traceless
from unfreeze_trainer.training.trials import Trials, trial_batches

if TYPE_CHECKING:
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.phases.compile import Phase
    from unfreeze_trainer.phases.freezer import Freezer
    from unfreeze_trainer.runs.events import Events
    from unfreeze_trainer.runs.state import RunState
    from unfreeze_trainer.tasks import Task

log = logging.getLogger(__name__)

_PASSES = 2
_PASSES_BY_CHANCE = 8
_SAMPLES = 2
"""Of a pass that is taken for this alone: some models take no batch of one."""


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
    task: Task,
    module: nn.Module,
    names: Collection[str],
    *,
    autocast: Callable[[], AbstractContextManager[Any]],
    sizes: Collection[int] = (_SAMPLES,),
) -> Evidence:
    """Run a few training samples forward and backward through a model, in training mode; nothing of it is left behind.

    The longest batch, and one of each other size, show besides whether the model takes what the training will give it. A
    batch of one sample is no evidence: what draws a mask for each sample draws a single number there.

    Parameters
    ----------
    task
        Some of its training samples are used.
    module
        Whole, on one device; no engine has taken it over.
    names
        Parameters that any phase trains.
    autocast
        Returns the context of a forward pass.
    sizes
        Samples that the micro batches of the training have.

    Raises
    ------
    JobError
        InvalidModel: none of them gets a gradient, or the model fails. InvalidData: a sample cannot be read, or the model
        fails at this one. InvalidAdapter: it goes into layers that the model never calls.
    """
    samples = task.splits["train"]
    batches = trial_batches(task.extents("train"), sizes)
    passes: list[frozenset[str]] = []
    with traceless(module):
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in names)
        module.train()
        trials = Trials(task, module, autocast)
        for number, batch in enumerate(batches):
            found = trials.run(batch, seed=number)
            passes += [found] * (len(batch) > 1)
        while len(passes) < (_PASSES_BY_CHANCE if trials.lots.drawn else _PASSES):
            pair = [(_SAMPLES * len(passes) + i) % samples for i in range(_SAMPLES)]
            passes.append(trials.run(pair, seed=len(batches) + len(passes)))
        always, ever = frozenset.intersection(*passes), frozenset.union(*passes)
        if ever:
            _require_reached(trials, module, names, ever, batches[0])
    if not ever:
        raise JobError(
            "InvalidModel",
            "none of the weights that the job trains gets a gradient: the model's outputs do not depend on them. Choose"
            " another model, or other blocks in spec.strategy",
        )
    lacking, agree = frozenset(names) - always, always == ever
    return Evidence(lacking if agree else frozenset(), frozenset() if agree else lacking, trials.lots.drawn)


def _require_reached(
    trials: Trials, module: nn.Module, names: Collection[str], used: Collection[str], batch: list[int]
) -> None:
    """Refuse an adapter in layers whose weights the model takes without calling them, where it has no other or merging it would tell.

    So do attention of timm's BEiT, EVA and Swin V2 and of transformers' WavLM, and Mamba's `dt_proj`: what is beside such a weight has no
    part in the outputs, and folded into it would have one.
    """
    adapted: dict[str, Any] = {path: part for path, part in module.named_modules() if hasattr(part, "get_base_layer")}
    own = {path: [name for name in names if _beside(name, path)] for path in adapted}
    adapted = {path: part for path, part in adapted.items() if own[path]}
    idle = {path: part for path, part in adapted.items() if not any(name in used for name in own[path])}
    if not idle:
        return
    module.requires_grad_(False)
    for part in idle.values():
        weight = getattr(part.get_base_layer(), "weight", None)
        if isinstance(weight, nn.Parameter) and weight.is_floating_point():
            weight.requires_grad_(True)
    read = trials.run(batch)
    passed = {path: part for path, part in idle.items() if f"{path}.base_layer.weight" in read}
    if passed and (len(idle) == len(adapted) or any(map(_tells, passed.values()))):
        there, others = (
            {path.rpartition(".")[2] for path in paths} for paths in (passed, adapted.keys() - idle.keys())
        )
        instead = f", such as {', '.join(sorted(others))}" if others else ""
        raise JobError(
            "InvalidAdapter",
            f"spec.adapter goes into {', '.join(sorted(there))}, layers that this model never calls, since it computes with their"
            " weights itself: there it has no effect while it trains, and another one once it is merged. Name other layers in"
            f" targetModules{instead}",
        )


def _beside(name: str, path: str) -> bool:
    """Return whether a parameter belongs to the adapter of a layer, and is not the layer's own."""
    return name.startswith(f"{path}.") and not name.startswith(f"{path}.base_layer.")


@torch.no_grad()
def _tells(part: Any) -> bool:
    """Return whether a layer with its adapter folded in has other weights."""
    part = copy.deepcopy(part)
    weight = part.get_base_layer().weight.clone()
    part.merge()
    return not torch.allclose(part.get_base_layer().weight, weight, rtol=1e-4, atol=1e-6)


def agree_on_unused(
    engine: Engine, task: Task, module: nn.Module, names: Collection[str], sizes: Collection[int]
) -> Evidence:
    """Find unused weights before an engine takes a module over, where it will lie: rank 0's evidence. Collective.

    What an engine divides may be too large for the accelerator: it is tried on the CPU, in small batches.
    """
    if not engine.divides:
        module.to(engine.device)
    elif engine.device.type != "cpu":
        sizes = {min(size, _SAMPLES) for size in sizes}
    return engine.broadcast_json(find_unused(task, module, names, autocast=engine.autocast, sizes=sizes), Evidence)


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
        Take them, once in a run.
    evidence
        The same on every rank.
    """

    def __init__(self, engine: Engine, freezer: Freezer, state: RunState, events: Events, evidence: Evidence) -> None:
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
        step, unused, at_times = self._state.step, self._state.unused, self._state.gradients_at_times
        if unused:
            self._events.add("unusedParameters", step=step, count=len(unused), parameters=unused)
            what = "get no gradient from this model, and stay as they are"
            log.warning("%d parameters %s: %s", len(unused), what, some_of(unused))
        if at_times:
            self._events.add("gradientsAtTimes", step=step, count=len(at_times), parameters=at_times)
            log.warning("%d parameters get a gradient in some steps only: %s", len(at_times), some_of(at_times))

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
