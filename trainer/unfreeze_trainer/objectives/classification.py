"""Classification: each sample is of one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unfreeze_api.contracts.report import Usefulness
from unfreeze_trainer.objectives.base import IGNORED, TARGETS, Objective
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.objectives.targets import Encoder
from unfreeze_trainer.usefulness import judge


class Classification(Objective):
    """Cross-entropy of logits, one for each label."""

    problem_type = "single_label_classification"
    pipelined = True

    def __init__(self, learned: Encoder[Any]) -> None:
        super().__init__(learned)
        self.outputs = self.labels
        self.metrics = ClassificationMetrics(len(self.labels))

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return each sample's cross-entropy in nats, float32 of shape (samples,); 0 for a row of padding."""
        return functional.cross_entropy(outputs.float(), batch[TARGETS], reduction="none", ignore_index=IGNORED)

    def answer(self, outputs: str) -> str:
        """Return a Python expression for the label that the model gives one sample."""
        return f"labels[int({outputs}.argmax())]"


class ClassificationMetrics(Metrics):
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
    def update(self, state: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch in place. `outputs` are logits, (samples, classes) on any device, batch["labels"] are (samples,)."""
        labels = batch[TARGETS].to(outputs.device)
        kept = labels != IGNORED
        labels, logits = labels[kept], outputs[kept].float()
        predictions = logits.argmax(dim=-1)
        counts = [
            torch.bincount(classes, minlength=self.classes).double()
            for classes in (labels[labels == predictions], predictions, labels)
        ]
        losses = functional.cross_entropy(logits, labels, reduction="none").double()
        total = torch.stack([losses.sum(), torch.tensor(float(len(labels)), dtype=torch.float64, device=labels.device)])
        state += torch.cat([*counts, total]).to(state.device)

    def usefulness(self, state: Tensor, labels: Sequence[str], metric: str) -> Usefulness | None:
        """Return whether a model with this summed state is better than always guessing one class."""
        hits, _, actual = state[: 3 * self.classes].view(3, self.classes).cpu().numpy()
        return judge(hits, actual, labels, metric) if actual.any() else None

    def _compute(self, state: Tensor) -> dict[str, float]:
        """Return the metrics as scikit-learn defines them.

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
