"""The guard against silent freezes: what a phase trains has moved, what it freezes has not, on all ranks alike.

Every engine here keeps float32 weights, so the weights that the model computes with are the masters: under ZeRO they
are gathered from the partitions that the optimizer changed, or held in shares like them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import torch.distributed as dist

from unfreeze_trainer.errors import JobError, some_of

if TYPE_CHECKING:
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.phases.freezer import ParamGroup
    from unfreeze_trainer.runs.events import Events
    from unfreeze_trainer.runs.state import RunState

log = logging.getLogger(__name__)

FIRST_CHECK = 2
"""Steps of a phase after which it is checked first. A group that has not moved is looked at again, with twice the
distance, up to PATIENCE: a tiny learning rate may need some steps to change a float32."""
PATIENCE = 64

_FAULT = "the engine is at fault"
_STUCK = (
    "their learning rate is too small to change numbers of their size, as a head's are whose weights have exploded, or nothing that the"
    " engine computes reaches them"
)

MAX_SKIPPED = 20
"""Steps in a row that may be skipped. Under float16 each halves the factor of the loss, which starts at 2 ** 16."""


def count_skipped(state: RunState, events: Events, phase_name: str, step: int) -> None:
    """Count a step that was skipped, since its gradients were not finite; tell of the first one in a row.

    Raises
    ------
    JobError
        It is one too many in a row.
    """
    state.skipped_steps += 1
    state.skipped_in_a_row += 1
    if state.skipped_in_a_row == 1:
        events.add("skippedStep", step=step, skippedSteps=state.skipped_steps)
        log.warning("step %d is skipped: its gradients are not finite", step)
    if state.skipped_in_a_row == MAX_SKIPPED:
        raise JobError(
            "NonFiniteGradients",
            f"phase {phase_name}: {MAX_SKIPPED} steps in a row, up to step {step}, had gradients that were not finite,"
            " and changed nothing: lower spec.strategy.learningRate or raise its warmupRatio, set spec.training.maxGradNorm,"
            " choose another spec.training.precision than Float16, or look for values in the data or the base model that"
            " are not finite",
        )


class Guard:
    """Watches one phase. Making one is collective.

    Parameters
    ----------
    engine
        After `begin` of the phase.
    phase_name
        For messages.
    groups
        What the phase trains.
    steps
        Steps of the phase from here, so that a short one is checked at its end.
    at_rest
        Returns names of parameters that may stay where they are although they train.
    """

    def __init__(
        self,
        engine: Engine,
        phase_name: str,
        groups: Sequence[ParamGroup],
        steps: int,
        at_rest: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._engine, self._phase, self._groups, self._at_rest = engine, phase_name, groups, at_rest
        self._index = {name: position for position, name in enumerate(engine.shapes)}
        trained = {name for group in groups for name in group.names}
        self._frozen = [name for name in self._index if name not in trained]
        self._before = engine.checksums()
        self._done = 0
        self._next, self._last = min(FIRST_CHECK, steps), min(PATIENCE, steps)

    def wants(self, steps: int) -> bool:
        """Return whether, if so many steps more have been taken, it is time to check."""
        return 0 < self._next <= self._done + steps

    def after_step(self) -> None:
        """Count a step, check when it is time. Collective at the same steps on every rank."""
        self._done += 1
        if self._done == self._next:
            still = self.check(final=self._done == self._last)
            self._next = min(self._done * 2, self._last) if still else 0

    def check(self, *, final: bool) -> list[str]:
        """Compare with the phase's begin; return the groups that have not moved yet.

        Raises
        ------
        JobError
            Ranks differ, a frozen parameter has moved, or, when `final`, a trainable group has not.
        """
        now = self._engine.checksums()
        low, high = now.clone(), now.clone()
        self._engine.all_reduce(low, dist.ReduceOp.MIN)
        self._engine.all_reduce(high, dist.ReduceOp.MAX)
        names = list(self._index)
        if apart := [names[position] for position in (low != high).nonzero().flatten().tolist()]:
            raise JobError("RanksDiffer", self._message("the ranks no longer hold the same weights", apart, _FAULT))
        changed = now != self._before
        if moved := [name for name in self._frozen if changed[self._index[name]]]:
            raise JobError("FrozenWeightsMoved", self._message("frozen parameters have moved", moved, _FAULT))
        still = [group for group in self._groups if not any(changed[self._index[name]] for name in group.names)]
        resting = self._at_rest() if still and final else ()
        if final and (stuck := [name for group in still for name in group.names if name not in resting]):
            raise JobError(
                "SilentFreeze",
                self._message(f"{self._done} steps have not moved trainable parameters", stuck, _STUCK),
            )
        return [group.block for group in still]

    def _message(self, what: str, names: list[str], why: str) -> str:
        return f"phase {self._phase}: {what}: {some_of(names)}. Nothing after this would be worth its time; {why}"
