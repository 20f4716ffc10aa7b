"""Loss scaling, which keeps float16 gradients from vanishing; the same for every engine."""

from __future__ import annotations

import torch
from torch import Tensor

_GROWTH_STEPS = 2000  # torch's GradScaler


class LossScale:
    """A dynamic factor of the loss (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2), in torch's GradScaler's steps.

    It lies on the device, so that no step waits for it.

    Parameters
    ----------
    device
        Of the gradients.
    value
        The factor.
    good_steps
        Steps without an overflow since the factor changed.

    Notes
    -----
    GradScaler itself looks for overflows in one optimizer's gradients on one rank: of shares it would judge on each rank
    another way. DeepSpeed 0.19 under torch's autocast clips before it takes the factor off, and moves the factor once for
    each parameter group. So engines judge by the norm over all ranks here, which they need for clipping anyway.
    """

    def __init__(self, device: torch.device, value: float = 65536.0, good_steps: int = 0) -> None:
        self.value = torch.tensor(value, device=device)
        """float32 without dimensions."""
        self._good_steps = torch.tensor(good_steps, device=device)

    def update(self, overflow: Tensor) -> None:
        """Halve it after an overflow (bool without dimensions), double it after 2000 steps without one."""
        good = torch.where(overflow, 0, self._good_steps + 1)
        grows = good == _GROWTH_STEPS
        self.value = torch.where(overflow, self.value / 2, torch.where(grows, self.value * 2, self.value))
        self._good_steps = torch.where(grows, 0, good)

    def state(self) -> tuple[float, int]:
        """Return the factor and the steps without an overflow; waits for the device."""
        return float(self.value), int(self._good_steps)
