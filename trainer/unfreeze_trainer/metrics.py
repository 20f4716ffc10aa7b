"""Metrics of classification as sums: every worker adds up its own samples, the sum of the workers is exact."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""Label of a row that only fills a batch up (torch's ignore_index): it has no loss and is not counted."""


class ClassificationMetrics:
    """accuracy, macroF1, balancedAccuracy and loss of one split.

    The state is float64 of shape (3 * classes + 2,): hits, predictions and samples of each class, sum of losses,
    number of samples. These determine the metrics as the whole confusion matrix does, at a size that 10,000 classes
    do not square.

    Parameters
    ----------
    classes
        Number of labels.
    """

    names = ("accuracy", "macroF1", "balancedAccuracy", "loss")

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def new_state(self) -> Tensor:
        """Return the state of no samples, on the CPU; states are added."""
        return torch.zeros(3 * self.classes + 2, dtype=torch.float64)

    @torch.no_grad()
    def update(self, state: Tensor, logits: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch in place. `logits` are (samples, classes) on any device, batch["labels"] are (samples,)."""
        labels = batch["labels"].to(logits.device)
        kept = labels != IGNORED
        labels, logits = labels[kept], logits[kept].float()
        predictions = logits.argmax(dim=-1)
        counts = [
            torch.bincount(classes, minlength=self.classes).double()
            for classes in (labels[labels == predictions], predictions, labels)
        ]
        losses = functional.cross_entropy(logits, labels, reduction="none").double()
        total = torch.stack([losses.sum(), torch.tensor(float(len(labels)), dtype=torch.float64, device=labels.device)])
        state += torch.cat([*counts, total]).to(state.device)

    def compute(self, state: Tensor) -> dict[str, float]:
        """Return the metrics of a summed state, as scikit-learn defines them.

        macroF1 is the mean over the classes that occur among labels or predictions, balancedAccuracy the mean recall
        over the classes that occur among the labels; loss is the mean cross-entropy in nats.
        """
        state = state.cpu()
        hits, predicted, actual = state[: 3 * self.classes].view(3, self.classes)
        loss, count = state[-2:].tolist()
        if count == 0:
            return {}
        either = (predicted + actual) > 0
        f1 = 2 * hits[either] / (predicted + actual)[either]
        recall = hits[actual > 0] / actual[actual > 0]
        return {
            "accuracy": hits.sum().item() / count,
            "macroF1": f1.mean().item(),
            "balancedAccuracy": recall.mean().item(),
            "loss": loss / count,
        }
