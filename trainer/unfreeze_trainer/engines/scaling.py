"""Loss scaling, which keeps float16 gradients from vanishing; the same for every engine."""

from __future__ import annotations

from dataclasses import dataclass

_GROWTH_STEPS = 2000  # torch's GradScaler


@dataclass
class LossScale:
    """A dynamic factor of the loss (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2), in torch's GradScaler's steps.

    Notes
    -----
    GradScaler itself looks for overflows in one optimizer's gradients on one rank: of shares it would judge on each rank
    another way. DeepSpeed 0.19 under torch's autocast clips before it takes the factor off, and moves the factor once for
    each parameter group. So engines judge by the norm over all ranks here, which they need for clipping anyway.
    """

    value: float = 65536.0
    good_steps: int = 0
    """Steps without an overflow since the factor changed."""

    def update(self, *, overflow: bool) -> None:
        """Halve it after an overflow, double it after 2000 steps without one."""
        self.good_steps = 0 if overflow else self.good_steps + 1
        if overflow:
            self.value /= 2
        elif self.good_steps == _GROWTH_STEPS:
            self.value, self.good_steps = self.value * 2, 0
