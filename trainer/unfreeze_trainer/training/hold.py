"""Guard Hold: each step pulls what it trains below the head towards the base, as strongly as the budget needs."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch

from unfreeze_trainer.engines.base import persistent_buffers
from unfreeze_trainer.models.blocks import of_head
from unfreeze_trainer.runs.pull import Pull, share_kept, steps_between

if TYPE_CHECKING:
    from torch import Tensor

    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.models import LoadedModel
    from unfreeze_trainer.phases.compile import Phase
    from unfreeze_trainer.phases.freezer import Freezer
    from unfreeze_trainer.runs.state import RunState
    from unfreeze_trainer.training.forgetting import Forgetting
    from unfreeze_trainer.training.plan import Plan

_TRIES = 6
"""Looks at an evaluation, at most; the last one is at the base itself."""


class Hold:
    """The pull of a run.

    Parameters
    ----------
    loaded, engine, plan, freezer, forgetting
        Of the run; the engine has taken the model over, and it still is the base, of which each rank keeps a copy of what it holds.
    """

    def __init__(
        self, loaded: LoadedModel, engine: Engine, *, plan: Plan, freezer: Freezer, forgetting: Forgetting
    ) -> None:
        self.on = forgetting.guard == "Hold" and forgetting.watches
        self._engine, self._plan, self._freezer, self._forgetting = engine, plan, freezer, forgetting
        self._pulled: tuple[object, list[tuple[float, list[Tensor], list[Tensor]]]] = (None, [])
        if not self.on:
            return
        chosen = {name for phase in plan.phases for name in freezer.chosen_names(phase)}
        self._base = copy_below_head(loaded, engine, chosen)
        self._buffers = {
            name: tensor.clone()
            for name, tensor in persistent_buffers(engine.module).items()
            if tensor.is_floating_point()
        }
        steps = sum(phase.steps for phase in plan.phases if forgetting.moves(phase.index))
        self._every = steps_between(steps, plan.evaluate_every)

    def after_step(self, state: RunState, phase: Phase, factor: float) -> None:
        """Pull once, and look at what is lost where it is time. Collective where it looks.

        Parameters
        ----------
        state
            Of the run, with this step.
        phase
            That it belongs to.
        factor
            What the step's learning rates were multiplied by.
        """
        if not self.on or not self._forgetting.moves(phase.index):
            return
        began = time.perf_counter()
        if share := state.pull.strength * factor:
            self._pull(phase, share)
        state.guard_seconds += time.perf_counter() - began
        done = state.step - phase.first_step
        if done % self._every == 0 and not self._plan.evaluates_at(state.step, phase.index):
            self._steer(state)

    def before_evaluation(self, state: RunState, phase: Phase) -> None:
        """Bring the weights back within the budget, where they are beyond it. Collective."""
        if not self.on or not self._forgetting.moves(phase.index):
            return
        lost, budget = self._steer(state), self._forgetting.budget
        assert budget is not None  # a rule of the API
        if math.isfinite(lost) and lost <= budget:
            return
        state.corrections += 1
        for left in reversed(range(1, _TRIES)):
            kept = share_kept(lost, budget) if left > 1 else 0.0
            began = time.perf_counter()
            self._pull(phase, 1 - kept, alike=True)
            state.guard_seconds += time.perf_counter() - began
            self._forgetting.forget_figures()
            found = self._forgetting.measure(state)
            assert found is not None  # as before
            lost = found.first.value
            if found.within(budget):
                return

    def _steer(self, state: RunState) -> float:
        """Look at what is lost, and choose how strongly to pull from now on, once at a step; return it."""
        found, budget = self._forgetting.measure(state), self._forgetting.budget
        assert found is not None  # of phases that train weights below the head
        assert budget is not None
        if state.step > state.pull.step:  # else it is chosen: an evaluation that a stop cut short begins anew
            state.pull = state.pull.after(found.first.value, budget, state.step)
        return found.first.value

    @torch.no_grad()
    def _pull(self, phase: Phase, share: float, *, alike: bool = False) -> None:
        """Take a share of the way back to the base; `alike` whatever the learning rates of the weights."""
        for rate, now, base in self._weights(phase):
            part = share if alike else share * rate
            if part < 1:
                torch._foreach_lerp_(now, base, part)
            else:  # which what is no number would not follow
                torch._foreach_copy_(now, base)

    def _weights(self, phase: Phase) -> list[tuple[float, list[Tensor], list[Tensor]]]:
        """Return what the phase trains below the head: learning rates, as a share of the highest, weights, and the base's."""
        optimizer = self._engine.optimizer
        if self._pulled[0] is not optimizer:  # each phase has its own
            held = dict(self._engine.held())
            groups = [
                (group.lr, [name for name in group.names if name in self._base and held[name].numel()])
                for group in self._freezer.groups(phase, 0.0)
            ]
            highest = max((rate for rate, names in groups if names), default=1.0) or 1.0
            found = [
                (rate / highest, [held[name] for name in names], [self._base[name] for name in names])
                for rate, names in groups
                if names
            ]
            if self._buffers:  # statistics of BatchNorm; others stay where they are
                buffers = persistent_buffers(self._engine.module)
                found.append((1.0, [buffers[name] for name in self._buffers], [*self._buffers.values()]))
            self._pulled = optimizer, found
        return self._pulled[1]


def copy_below_head(loaded: LoadedModel, engine: Engine, names: Collection[str]) -> dict[str, Tensor]:
    """Return copies of what this rank holds of some parameters, those of the head left out."""
    head = of_head(loaded.blocks)
    return {name: tensor.clone() for name, tensor in engine.held() if name in names and name not in head}


def new_pull(phase: Phase) -> Pull:
    """Return the pull that a phase begins with: none."""
    return Pull(step=phase.first_step)
