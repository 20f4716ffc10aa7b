"""Whether learning rates destroy what a model has learned: by the losses of each step and the newest evaluation. Pure.

All ranks hold the same numbers, so each of them judges alike, and the judgement of a run does not depend on when ranks meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from unfreeze_api.tasks.base import Metric

_FEW = 3
"""Steps before which there is no mean."""
_WINDOW, _UNITS = 5, 128
"""Steps, and units of the loss, that a running mean is over at least."""
_BURST, _SURE_BURST = 1.3, 4.0
"""How many times the loss of before is a burst, and one that needs no evaluation to confirm it."""
_CAP = 5.0
"""How many times the loss of before a step's counts at most: losses of a ruined model differ by orders of magnitude, and with them
so large a noise that no mean of them would be sure; a single one should not make a mean either."""
_RECOVERED = 0.75
"""Share of the loss of before below which the model has learned since."""
_RISE = 2.0
"""How many times the lowest mean so far is a rise, where an evaluation has fallen too."""
_NOISE = 3.2
"""Standard errors of a running mean that a difference has at least."""
_FALL = 0.05
"""What a metric falls by at least beyond four standard errors."""


class Course(BaseModel):
    """What the steps of a phase have shown so far; a step adds to it, in whatever portions steps come."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    steps: int = 0
    """That had a loss which is a number."""
    start: float = 0.0
    """Loss of the first step: all that rates cannot have changed."""
    mean: float = 0.0
    """Running mean of the loss, each step's capped."""
    shown: float = 0.0
    """Running mean of the loss as it was, for people."""
    variance: float = 0.0
    """Running variance of the loss of a step, capped."""
    spread: float = 1.0
    """Sum of the squared shares that the steps have in the mean: 1 / steps of a plain one."""
    noise: float = 0.0
    """Standard error of the running mean."""
    low: float = math.inf
    """Lowest running mean."""
    peak: float = 0.0
    """Highest running mean of the loss as it was."""
    peak_step: int = 0
    """Step of the phase that had it, from 1."""
    burst: float = 0.0
    """Highest ratio of the running mean to the loss of before, as far as it is no noise."""

    def after(self, losses: Sequence[tuple[float, float]], *, blank: float = 0.0) -> Course:
        """Return the course with further steps.

        Parameters
        ----------
        losses
            Mean loss and number of units of each. One that is not finite is passed over: its step changed nothing.
        blank
            Least loss that a model is believed to have before it has learned anything, where it is known: that of the first step
            is one of few samples.
        """
        course = self
        for loss, units in losses:
            if math.isfinite(loss) and units:
                course = course._step(loss, units, blank)
        return course

    def _step(self, loss: float, units: float, blank: float) -> Course:
        steps = self.steps + 1
        share = max(1 / max(_WINDOW, _UNITS / units), 1 / steps)
        start = self.start if self.steps else loss
        before = max(start, blank)
        gap = min(loss, _CAP * before or math.inf) - self.mean
        mean = self.mean + share * gap
        variance = (1 - share) * (self.variance + share * gap * gap)
        spread = (1 - share) ** 2 * self.spread + share**2
        noise = math.sqrt(variance * spread / (1 - spread)) if spread < 1 else 0.0
        shown = self.shown + share * (loss - self.shown)
        sure = steps >= _FEW and before > 0 and mean - before > _NOISE * noise
        return Course(
            steps=steps,
            start=start,
            mean=mean,
            shown=shown,
            variance=variance,
            spread=spread,
            noise=noise,
            low=min(self.low, mean),
            peak=max(self.peak, shown),
            peak_step=steps if shown > self.peak else self.peak_step,
            burst=max(self.burst, mean / before) if sure else self.burst,
        )

    def sound(self, *, blank: float = 0.0) -> bool:
        """Return whether there is no reason for doubt: the loss has not burst, be it by chance, nor lies far above its lowest.

        The first steps of a phase show nothing: the loss of a step is that of the weights before it.
        """
        seen = self.steps >= _FEW and self.burst < _BURST and self.mean <= _BURST * max(self.start, blank)
        return seen and not self._has_risen()

    def _has_risen(self) -> bool:
        return self.steps > _FEW and self.mean > _RISE * self.low and self.mean - self.low > _NOISE * self.noise

    def destroyed(
        self,
        metric: Metric,
        value: float,
        *,
        samples: int,
        useful: bool | None = None,
        doubtful: bool = False,
        best: float | None = None,
        blank: float = 0.0,
        strict: bool = False,
    ) -> bool:
        """Return whether the learning rates of this phase have destroyed the model, by an evaluation.

        That is so where the loss has burst and the model has learned nothing since, or where its loss has risen far above its
        lowest and the metric has fallen far below its best. Where nobody knows whether it is useful, a burst needs such a fall
        too, unless it is one over the loss of a blank model: the first loss may have been low by luck.

        A metric that is better when it is lower rises without a bound where a model learns its samples by heart, whose loss is
        nearly 0 then and soon twice its lowest: that alone is no destruction.

        Parameters
        ----------
        metric, value
            Of the job, and what it is now.
        samples
            That it was measured on.
        useful
            Whether the model is better than the best constant answer, where that is known.
        doubtful
            Whether one that is not may be, and the samples are too few to tell.
        best
            Best value so far, None before there is one.
        blank
            As of `after`.
        strict
            Whether a model that has burst and is useful must have learned well too: that of a run that went back already.
        """
        learned = self.mean < _RECOVERED * max(self.start, blank)
        well = learned and (useful is not False or doubtful)
        fell = best is not None and fell_far(metric, value, best, samples)
        if self.burst >= _BURST and not well:
            if useful is not None:
                return not useful or strict
            if self.burst >= _SURE_BURST and (fell or (best is None and blank > 0)):
                return True
        return fell and self._has_risen() and not (well and metric.better == "Lower")

    def told(self) -> str:
        """Return the curve in a few numbers."""
        peak = f", {self.peak:.3g} at its highest (step {self.peak_step})" if self.peak_step > 1 else ""
        return f"the training loss was {self.start:.3g} at the beginning of the phase{peak}, and is {self.shown:.3g} after {self.steps} steps"


def fell_far(metric: Metric, value: float, best: float, samples: int) -> bool:
    """Return whether a metric lies further below its best value than its samples and an unlucky evaluation explain.

    Where higher is better a metric has a range of about 1: its standard error is at most 1 / (2 sqrt(samples)), that of a
    difference sqrt(2) times that. Where lower is better it has twice the value.
    """
    if math.isnan(value):
        return not math.isnan(best)
    if metric.better == "Higher":
        return best - value > _FALL + 4 * math.sqrt(0.5 / max(1, samples))
    return value > _RISE * best > 0
