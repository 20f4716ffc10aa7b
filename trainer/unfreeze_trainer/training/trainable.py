"""What trains in a phase: unfrozen, handed to the engine, and watched by the guard."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unfreeze_trainer.training.guard import Guard, count_skipped

if TYPE_CHECKING:
    from unfreeze_trainer.engines import Engine, OptimizerState
    from unfreeze_trainer.models.hook import StepHook
    from unfreeze_trainer.phases.compile import Phase
    from unfreeze_trainer.phases.freezer import Freezer
    from unfreeze_trainer.runs.events import Events
    from unfreeze_trainer.runs.state import RunState
    from unfreeze_trainer.training.unused import Unused


class Trainable:
    """Has an engine train exactly what a phase unfreezes.

    Parameters
    ----------
    engine, freezer, hook
        Of the run's model.
    unused
        Weights that get no gradient.
    state, events
        Of the run.
    weight_decay
        Of weights.
    moments
        Of a checkpoint, for the first phase; later ones continue with what the engine has.
    """

    def __init__(
        self,
        engine: Engine,
        freezer: Freezer,
        hook: StepHook,
        *,
        unused: Unused,
        state: RunState,
        events: Events,
        weight_decay: float,
        moments: OptimizerState,
    ) -> None:
        self._engine, self._freezer, self._hook, self._unused = engine, freezer, hook, unused
        self._state, self._events, self._weight_decay = state, events, weight_decay
        self._moments: OptimizerState | None = moments
        self._phase: Phase | None = None
        self._guard: Guard | None = None
        self.parameters = 0
        """How many numbers train in this phase."""

    @property
    def begun(self) -> bool:
        """Whether a phase has begun in this process: the engine can compute."""
        return self._phase is not None

    def resume(self, moments: OptimizerState) -> None:
        """Have the next phase that begins continue with these, and with no others; none has begun since."""
        self._moments, self._phase = moments, None

    def begin(self, phase: Phase) -> int:
        """Have the engine train a phase from here, under guard; return the steps that are left. Collective."""
        self._freezer.apply(phase)
        groups = self._freezer.groups(phase, self._weight_decay)
        self._engine.begin(groups, self._moments)
        self._hook.begin(phase.steps)
        self._engine.after_update = self._after_update
        self._moments, self._phase = None, phase
        self._state.trainable_hash = trainable_hash(self._freezer, phase)
        self._unused.watch(phase)
        self.parameters = sum(self._engine.shapes[name].numel() for group in groups for name in group.names)
        left = phase.first_step + phase.steps - self._state.step
        self._guard = Guard(self._engine, phase.name, groups, left, self._at_rest) if left else None
        return left

    def _after_update(self) -> None:
        assert self._phase is not None
        self._hook.after_update(self._state.step + 1 - self._phase.first_step, skipped=lambda: self._engine.skipped)

    def _at_rest(self) -> set[str]:
        return {*self._hook.at_rest(), *self._state.gradients_at_times}

    def after_step(self, *, look: bool) -> None:
        """Look at a step that is done: was it taken, have the right weights moved, did idle ones get a gradient. Collective.

        Parameters
        ----------
        look
            Whether this must be known now. Otherwise steps on an accelerator are looked at later, several at once: each
            look waits for it.

        Raises
        ------
        JobError
            The guard has found something, or too many steps in a row were skipped.
        """
        assert self._phase is not None
        wanted = self._guard is not None and self._guard.wants(self._engine.steps_unseen)
        if look or wanted or self._engine.device.type == "cpu":
            self._look(self._phase)
        if late := self._unused.late():
            self._look(self._phase)  # a new guard counts its own steps alone
            self._unused.take_in(late)
            self.begin(self._phase)

    def _look(self, phase: Phase) -> None:
        skips = self._engine.skips()
        for step, skipped in enumerate(skips, self._state.step + 1 - len(skips)):
            if skipped:
                count_skipped(self._state, self._events, phase.name, step)
                continue
            self._state.skipped_in_a_row, self._state.moved = 0, True
            if self._guard:
                self._guard.after_step()

    def names(self, phases: Sequence[Phase]) -> set[str]:
        """Return the parameters that any of some phases trains."""
        return {name for phase in phases for name in self._freezer.trainable_names(phase)}


def trainable_hash(freezer: Freezer, phase: Phase) -> str:
    """Return a hash of the names that a phase is to train, by which a later start knows whether they are the same."""
    return hashlib.sha256("\n".join(freezer.chosen_names(phase)).encode()).hexdigest()[:16]
