"""What an adapter does in a training step beside its gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class StepHook:
    """Called by the training loop at fixed places; this one does nothing, as most adapters do."""

    def begin(self, steps: int) -> None:
        """Start a phase of so many steps, or resume it; requires_grad is set."""

    def penalty(self) -> Tensor | float:
        """Return what is added to the mean loss of a step, the same on every rank; float32 without dimensions."""
        return 0.0

    def after_update(self, step: int, *, skipped: Callable[[], bool]) -> None:
        """Change weights after the optimizer, while the gradients are there.

        Parameters
        ----------
        step
            Steps of the phase that are done, this one included.
        skipped
            Returns whether it changed nothing, since its gradients were not finite. Waits for the device.
        """

    def at_rest(self) -> Collection[str]:
        """Return names of parameters that may stay where they are although they train."""
        return ()

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Return what a checkpoint has to hold, by name of parameter, as copies on the CPU."""
        return {}

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> Mapping[str, Mapping[str, Tensor]]:
        """Take over what `state` returned, out of a checkpoint's moments; return the others."""
        return state
