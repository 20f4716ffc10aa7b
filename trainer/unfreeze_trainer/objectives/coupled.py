"""What objectives have in common whose loss compares the samples of a step with each other, on whatever rank they are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from unfreeze_trainer.objectives.base import TARGETS, Objective


class Coupled(Objective):
    """A loss of all samples of a step together."""

    couples = True

    @abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each sample among all others, float32 of shape (samples,).

        Parameters
        ----------
        outputs
            Of all samples of a step, none of them padding: float32 of shape (samples, ...).
        targets
            As collate() gives them, (samples, ...).
        """

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the losses of a batch that stands alone, float32 of shape (samples,); 0 for a row of padding."""
        kept = self.counted(batch).to(outputs.device)
        found = outputs.float().flatten(1).sum(dim=1) * 0  # so that padding takes part in the backward pass
        if kept.any():
            losses = self.losses(outputs.float()[kept], batch[TARGETS].to(outputs.device)[kept])
            found = found.index_add(0, torch.nonzero(kept)[:, 0], losses)
        return found
