"""What the loop measures while it runs, without waiting for the device: loss, samples and tokens a second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unfreeze_trainer.link import Link

if TYPE_CHECKING:
    from unfreeze_trainer.engines import Engine

SYNC_SECONDS = 0.5
"""About how often the ranks meet to sum up the loss and to agree on whether to stop."""
_MAX_STEPS = 4096
_SMOOTHING = 0.9


class StopRequested(Exception):  # noqa: N818 - no error
    """Every rank has agreed to stop at this step."""


class Meter:
    """Sums loss, samples and tokens of all ranks, and carries the agreement to stop in the same collective.

    The mean loss of each step goes with them: what is made of those does not depend on when the ranks meet.

    Notes
    -----
    A flag that one rank raises must end all ranks at one step. Ranks meet every `interval` steps, an interval that each
    derives from the same summed times; between two meetings a step costs one addition on the device.
    """

    def __init__(self, engine: Engine, link: Link | None) -> None:
        self._engine, self._link = engine, link
        self.loss: float | None = None
        """Mean loss of a unit, smoothed; not finite while a loss since the ranks met last was not."""
        self.samples_per_second: float | None = None
        self.tokens_per_second: float | None = None
        self.rate_factor = 0.0
        """What every peak learning rate is multiplied by at the newest step."""
        self.step_work = 1.0
        """Work of a step of the present phase (see `phases.work`)."""
        self.work_seconds: float | None = None
        """Seconds that a sample takes for a unit of work, smoothed; it outlives phases and an epoch's smaller last
        batch."""
        self.pass_seconds = 0.0
        """Seconds of a sample's forward pass, as it was where blocks computed each once; 0 where none did."""
        self.observe: Callable[[Sequence[tuple[float, float]]], object] = _nothing
        """Called when the ranks meet, on each of them, with mean loss and units of each step since they met last."""
        self._recent_seconds = self._recent_work = 0.0
        self._interval = 1
        self._began = time.perf_counter()
        self._open_window()

    def _open_window(self) -> None:
        self._loss = torch.zeros((), device=self._engine.device)
        self._losses: list[Tensor] = []
        self._of_step: list[int] = []
        self._units_of_step = [0]
        self._steps = self._samples = self._units = self._tokens = 0
        self._seconds = 0.0

    def enter(self, step_work: float) -> None:
        """Take note of the work of a step of a phase that begins. How long those of the one before took says little of it."""
        self.step_work = step_work
        self._recent_seconds = self._recent_work = 0.0
        self._interval = 1
        if self.work_seconds is not None:
            self.work_seconds = max(self.work_seconds, self.pass_seconds)

    def passed(self, seconds: float) -> None:
        """Take note of how long a rank has taken for a sample's forward pass."""
        self.pass_seconds = seconds / self._engine.world_size

    def pause(self) -> None:
        """Stop the clock: evaluations and checkpoints are no training time."""
        self._seconds += time.perf_counter() - self._began

    def resume(self) -> None:
        """Let the clock run again."""
        self._began = time.perf_counter()

    def add(self, loss: Tensor, samples: int, tokens: int, units: int) -> None:
        """Count a micro batch: the sum of its units' losses, detached."""
        if samples:
            self._loss += loss
            self._losses.append(loss)
            self._of_step.append(self._steps)
            self._units_of_step[-1] += units
            self._samples += samples
            self._units += units
            self._tokens += tokens

    @property
    def meets_next(self) -> bool:
        """Whether the ranks meet at the end of the step that is under way."""
        return self._steps + 1 >= self._interval

    def after_step(self, *, due: bool = False) -> bool:
        """Count a step; return whether the ranks have just met, with new figures. Raises StopRequested.

        Parameters
        ----------
        due
            Whether they meet here in any case.
        """
        self._steps += 1
        if self._steps < self._interval and not due:
            self._units_of_step.append(0)
            return False
        stop = self._link is not None and self._link.stop_requested()
        loss_sum = self._loss.item()  # waits for the device, so that its work is in the time
        self.pause()
        mine = [loss_sum, self._samples, self._units, self._tokens, float(stop), self._seconds]
        figures = [torch.tensor(mine, dtype=torch.float64), self._sums(), torch.tensor(self._units_of_step).double()]
        loss, samples, units, tokens, stops, seconds, *steps = self._engine.all_reduce(torch.cat(figures)).tolist()
        losses, of_steps = steps[: self._steps], steps[self._steps :]
        seconds = max(seconds / self._engine.world_size, 1e-9)
        fade = _SMOOTHING**self._steps
        before = self.loss if self.loss is not None and math.isfinite(self.loss) else None
        keep = 0.0 if before is None else fade
        self.loss = keep * (before or 0.0) + (1 - keep) * loss / max(units, 1)
        self.samples_per_second, self.tokens_per_second = samples / seconds, tokens / seconds or None
        self._recent_seconds = fade * self._recent_seconds + seconds
        self._recent_work = fade * self._recent_work + samples * self.step_work
        self.work_seconds = self._recent_seconds / max(self._recent_work, 1)
        self._interval = max(1, min(_MAX_STEPS, round(SYNC_SECONDS * self._steps / seconds)))
        self._open_window()
        self.resume()
        self.observe([(loss / max(units, 1), units) for loss, units in zip(losses, of_steps, strict=True)])
        if stops:
            raise StopRequested
        return True

    def _sums(self) -> Tensor:
        """Return the sum of this rank's losses in each step since the ranks met, float64 of shape (steps,) on the CPU."""
        sums = torch.zeros(self._steps, dtype=torch.float64)
        if self._losses:
            found = torch.stack(self._losses).to("cpu", torch.float64)
            sums.index_add_(0, torch.tensor(self._of_step), found)
        return sums

    def start_over(self) -> None:
        """Forget the losses so far: the training goes on from where they were other ones."""
        self.loss = None
        self._open_window()

    def check_stop(self) -> None:
        """Raise StopRequested on every rank when any was asked to stop. Collective."""
        if self._engine.any_rank(self._link is not None and self._link.stop_requested()):
            raise StopRequested


def _nothing(_: object) -> None:
    pass
