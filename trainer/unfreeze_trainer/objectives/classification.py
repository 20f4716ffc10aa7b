"""Classification: each sample is of one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log, sqrt

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unfreeze_api.contracts.report import Usefulness
from unfreeze_api.tasks.labels import LabelOptions
from unfreeze_trainer.objectives.answers import OneOf
from unfreeze_trainer.objectives.base import IGNORED, TARGETS, Objective, exact
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.objectives.ranking import roc_auc
from unfreeze_trainer.objectives.targets import Targets
from unfreeze_trainer.objectives.targets.labels import Labels
from unfreeze_trainer.objectives.weighting import class_weights
from unfreeze_trainer.usefulness import judge

_PLAIN = LabelOptions()
BINARY = 2
CALIBRATION_BINS = 15
"""Of the same width each, as Guo et al. 2017 have them."""


class Classification(Objective):
    """Cross-entropy of logits, one for each label.

    Parameters
    ----------
    learned
        What the training data says.
    options, where
        Of the task, and their field: weights of the labels, label smoothing, focal loss, sampling.

    Raises
    ------
    JobError
        InvalidData: a label that has a weight does not occur.
    """

    problem_type = "single_label_classification"
    pipelined = True

    def __init__(self, learned: Labels, options: LabelOptions = _PLAIN, where: str = "") -> None:
        super().__init__(learned)
        self.outputs = self.labels
        self.metrics = ClassificationMetrics(len(self.labels))
        self.answers = OneOf(self.labels)
        self.balances = options.sampling == "Balanced"
        self._smoothing, self._focal = options.label_smoothing or 0.0, options.focal_loss
        self.not_convex = "the focal loss is not convex" if self._focal else ""
        share, gamma = 1 / len(self.labels), self._focal.gamma if self._focal else 0.0
        self.blank_loss = -log(share) * (1 - share) ** gamma
        weights = class_weights(learned, options, where)
        self._weights = None if weights is None else torch.from_numpy(weights).float()

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return each sample's loss in nats, float32 of shape (samples,); 0 for a row of padding.

        It is the cross-entropy times the weight of the sample's label, as torch has it with label smoothing, and with the
        focal loss times (1 - p)^gamma, p being the probability of that label (Lin et al. 2017, equation 5).
        """
        logits, labels = exact(outputs), batch[TARGETS]
        if self._weights is not None:
            self._weights = self._weights.to(logits)
        losses = functional.cross_entropy(
            logits,
            labels,
            weight=self._weights,
            reduction="none",
            ignore_index=IGNORED,
            label_smoothing=self._smoothing,
        )
        if self._focal is None:
            return losses
        chances = logits.softmax(dim=-1).gather(1, labels.clamp(min=0)[:, None])[:, 0]
        return losses * focus(chances, self._focal.gamma)

    def answer(self, outputs: str) -> str:
        """Return a Python expression for the label that the model gives one sample."""
        return f"labels[int({outputs}.argmax())]"


def focus(chances: Tensor, gamma: float) -> Tensor:
    """Return (1 - p)^gamma of the probabilities of what is right; its gradient is finite where p is 1 in float32."""
    return (1 - chances).clamp(min=torch.finfo(chances.dtype).tiny) ** gamma


class ClassificationMetrics(Metrics):
    """accuracy, macroF1, balancedAccuracy, auroc, mcc, brier, ece and loss of one split.

    The state is float64 of shape (3 * classes + 3 * 15 + 3,): hits, predictions and samples of each class; samples, hits and
    confidences of each bin of confidence; sums of squared errors and of losses, number of samples. Hits, predictions and
    samples determine their metrics as the whole confusion matrix does, at a size that 10,000 classes do not square. A row
    has a sample's class and its logits.

    Parameters
    ----------
    classes
        Number of labels.
    """

    names = ("accuracy", "macroF1", "balancedAccuracy", "auroc", "mcc", "brier", "ece", "loss")
    of_rows = ("auroc",)

    def __init__(self, classes: int) -> None:
        self.classes, self.row_width = classes, 1 + classes

    def new_state(self) -> Tensor:
        """Return the state of no samples, on the CPU; states are added."""
        return torch.zeros(3 * (self.classes + CALIBRATION_BINS) + 3, dtype=torch.float64)

    @torch.no_grad()
    def update(self, state: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch in place. `outputs` are logits, (samples, classes) on any device, batch["labels"] are (samples,)."""
        labels = batch[TARGETS].to(outputs.device)
        kept = labels != IGNORED
        labels, logits = labels[kept], outputs[kept].float()
        predictions = logits.argmax(dim=-1)
        hits = labels == predictions
        counts = [
            torch.bincount(classes, minlength=self.classes).double() for classes in (labels[hits], predictions, labels)
        ]
        probabilities = logits.double().softmax(dim=-1)
        confidence = probabilities.amax(dim=-1)
        bins = ((confidence * CALIBRATION_BINS).ceil().long() - 1).clamp(0, CALIBRATION_BINS - 1)
        calibration = [
            torch.bincount(bins, weights, minlength=CALIBRATION_BINS).double()
            for weights in (None, hits.double(), confidence)
        ]
        errors = (probabilities - functional.one_hot(labels, self.classes)).square().sum()
        losses = functional.cross_entropy(logits, labels, reduction="none").double()
        count = torch.tensor(float(len(labels)), dtype=torch.float64, device=labels.device)
        total = torch.stack([errors, losses.sum(), count])
        state += torch.cat([*counts, *calibration, total]).to(state.device)

    @torch.no_grad()
    def rows(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return class and logits of each sample of a batch, float32 of shape (samples, 1 + classes)."""
        labels = batch[TARGETS].to(outputs.device)
        return torch.cat([labels[:, None].float(), outputs.float()], dim=1)[labels != IGNORED]

    def undefined(self, targets: Targets) -> dict[str, str]:
        """Return the metrics that samples with such targets do not have, each with the reason."""
        if len(np.unique(targets.values)) > 1:
            return super().undefined(targets)
        return {"auroc": "it compares samples of one label with others, and all have the same; hold out more samples"}

    def usefulness(self, state: Tensor, labels: Sequence[str], metric: str) -> Usefulness | None:
        """Return whether a model with this summed state is better than always guessing one class."""
        hits, _, actual = state[: 3 * self.classes].view(3, self.classes).cpu().numpy()
        return judge(hits, actual, labels, metric) if actual.any() else None

    def _compute(self, state: Tensor) -> dict[str, float]:
        """Return the metrics as scikit-learn defines them.

        macroF1 is the mean over the classes that occur among labels or predictions, balancedAccuracy the mean recall
        over the classes that occur among the labels, brier that of one of two classes or the sum over more; loss is the mean
        cross-entropy in nats. ece is the mean distance of confidence and accuracy (Guo et al. 2017, arXiv 1706.04599).
        """
        state = state.cpu()
        errors, loss, count = state[-3:].tolist()
        if count == 0:
            return {}
        hits, predicted, actual = state[: 3 * self.classes].view(3, self.classes)
        _, right, confidence = state[3 * self.classes : -3].view(3, CALIBRATION_BINS)
        either = (predicted + actual) > 0
        f1 = 2 * hits[either] / (predicted + actual)[either]
        recall = hits[actual > 0] / actual[actual > 0]
        return {
            "accuracy": hits.sum().item() / count,
            "macroF1": f1.mean().item(),
            "balancedAccuracy": recall.mean().item(),
            "mcc": _matthews(hits, predicted, actual),
            "brier": errors / count / (BINARY if self.classes == BINARY else 1),
            "ece": (right - confidence).abs().sum().item() / count,
            "loss": loss / count,
        }

    def _compute_of_rows(self, rows: Tensor) -> dict[str, float]:
        """Return the mean over classes of the area under the curve of each against all others, by its probability.

        It is that of the classes that some samples have and some have not; where there is none, it has no value. Of two
        classes that of the second one is taken, as scikit-learn does.
        """
        labels, logits = rows[:, 0].long().numpy(), rows[:, 1:].double()
        if not logits.isfinite().all():
            return {"auroc": float("nan")}
        classes = [1] if self.classes == BINARY else range(self.classes)
        normalizer, found = logits.logsumexp(dim=1), []
        for label in classes:
            positive = labels == label
            if 0 < positive.sum() < len(labels):
                found.append(roc_auc(positive, (logits[:, label] - normalizer).exp().numpy()))
        return {"auroc": float(np.mean(found))} if found else {}


def _matthews(hits: Tensor, predicted: Tensor, actual: Tensor) -> float:
    """Return the correlation of labels and predictions, 0 where one of them is the same for all (Gorodkin 2004)."""
    count = actual.sum().item()
    of_both = (predicted @ actual).item()
    of_predicted, of_actual = ((count * count - (of @ of).item()) for of in (predicted, actual))
    return (hits.sum().item() * count - of_both) / sqrt(of_predicted * of_actual) if of_predicted * of_actual else 0.0
