"""Metrics of classification as sums: every worker adds up its own samples, the sum of the workers is exact."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from unfreeze_api.contracts import budget
from unfreeze_api.contracts.report import Usefulness
from unfreeze_trainer.usefulness import judge

IGNORED = -100
"""Label of a row that only fills a batch up (torch's ignore_index): it has no loss and is not counted."""


class Metrics(ABC):
    """Metrics of one split, from a state that is summed over samples and workers.

    Their names stand in the class, a few words that no label of a task goes into: they go to /progress, the job's status
    and Prometheus, which have no room for figures of each class. These belong into the report.
    """

    names: ClassVar[tuple[str, ...]]
    """What compute() may return, in camelCase."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        kept = budget.metrics(dict.fromkeys(cls.names, 0.0))
        if over := [name for name in cls.names if name not in kept]:
            raise TypeError(
                f"{cls.__name__}.names has no place for {', '.join(over)}: a task has at most {budget.MAX_METRICS} metrics,"
                f" each named by one word of at most {budget.MAX_NAME_LENGTH} characters"
            )

    @abstractmethod
    def new_state(self) -> Tensor:
        """Return the state of no samples, on the CPU; states are added."""

    @abstractmethod
    def update(self, state: Tensor, logits: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch in place."""

    def compute(self, state: Tensor) -> dict[str, float]:
        """Return the metrics of a summed state; none when it has no samples.

        Raises
        ------
        ValueError
            A metric is not among `names`.
        """
        values = self._compute(state)
        if unknown := sorted(set(values) - set(self.names)):
            raise ValueError(
                f"{type(self).__name__} does not name {', '.join(unknown)}: figures of each class are no metrics"
            )
        return values

    def usefulness(self, state: Tensor, labels: Sequence[str], metric: str) -> Usefulness | None:  # noqa: ARG002
        """Return whether a model with this summed state is better than guessing, None where that has no meaning."""
        return None

    @abstractmethod
    def _compute(self, state: Tensor) -> dict[str, float]: ...


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
