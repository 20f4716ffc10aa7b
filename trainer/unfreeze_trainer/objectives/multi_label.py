"""Multi-label classification: each sample has any number of labels, each of which is decided alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from math import log

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unfreeze_api.contracts.report import Usefulness
from unfreeze_api.tasks.labels import LabelOptions
from unfreeze_trainer.objectives.answers import AnyOf
from unfreeze_trainer.objectives.base import IGNORED, TARGETS, Objective, exact
from unfreeze_trainer.objectives.classification import focus
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.objectives.ranking import average_precision
from unfreeze_trainer.objectives.targets import Targets
from unfreeze_trainer.objectives.targets.label_sets import NO_LABEL, LabelSets
from unfreeze_trainer.objectives.weighting import positive_weights
from unfreeze_trainer.usefulness import judge_sets


class MultiLabel(Objective):
    """Binary cross-entropy of logits, one for each label; a label is predicted where its logit is above 0.

    Parameters
    ----------
    learned
        What the training data says.
    options, where
        Of the task, and their field: weights of the labels, focal loss.

    Raises
    ------
    JobError
        InvalidData: a label that has a weight does not occur.
    """

    problem_type = "multi_label_classification"

    def __init__(self, learned: LabelSets, options: LabelOptions, where: str = "") -> None:
        super().__init__(learned)
        self.outputs = self.labels
        self.metrics = MultiLabelMetrics(len(self.labels))
        self.answers = AnyOf(self.labels)
        self._focal = options.focal_loss
        self.not_convex = "the focal loss is not convex" if self._focal else ""
        self.blank_loss = log(2) * 0.5 ** (self._focal.gamma if self._focal else 0.0)
        weights = positive_weights(learned, options, where)
        self._weights = None if weights is None else torch.from_numpy(weights).float()

    def collate(
        self, targets: Targets, indices: Sequence[int], unread: AbstractSet[int] = frozenset()
    ) -> dict[str, Tensor]:
        """Return 1 for each label that a sample has and 0 for the others, float32 of shape (samples, labels)."""
        found = np.full((max(1, len(indices)), len(self.labels)), IGNORED, dtype=np.float32)
        for row, index in enumerate(indices):
            if index not in unread:
                ids = targets.values[index]
                found[row] = 0
                found[row, ids[ids != NO_LABEL]] = 1
        return {TARGETS: torch.from_numpy(found)}

    def counted(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return which rows of a batch are samples and no padding, bool of shape (samples,)."""
        return _counted(batch[TARGETS])

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return each sample's mean loss over the labels in nats, float32 of shape (samples,); 0 for a row of padding.

        It is the binary cross-entropy, times the label's weight where the sample has it, and with the focal loss times
        (1 - p)^gamma, p being the probability of what is right (Lin et al. 2017, equation 5).
        """
        logits = exact(outputs)
        targets = batch[TARGETS].to(logits.dtype)
        if self._weights is not None:
            self._weights = self._weights.to(logits)
        losses = _losses(logits, targets, self._weights)
        if self._focal is not None:
            chances = torch.where(targets == 1, logits, -logits).sigmoid()
            losses = losses * focus(chances, self._focal.gamma)
        return losses.mean(dim=1) * _counted(targets)

    def answer(self, outputs: str) -> str:
        """Return a Python expression for the labels that the model gives one sample."""
        return f"[label for label, logit in zip(labels, {outputs}[0]) if logit > 0]"


def _counted(targets: Tensor) -> Tensor:
    return targets[:, 0] != IGNORED


def _losses(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    return functional.binary_cross_entropy_with_logits(
        logits, targets.clamp(min=0), pos_weight=weights, reduction="none"
    )


class MultiLabelMetrics(Metrics):
    """microF1, macroF1, mAP, subsetAccuracy and loss of one split.

    The state is float64 of shape (3 * labels + 3,): hits, predictions and samples of each label, samples all of whose labels
    are right, sum of losses, number of samples. A row has a sample's targets and its logits.

    Parameters
    ----------
    labels
        Number of labels.
    """

    names = ("microF1", "macroF1", "mAP", "subsetAccuracy", "loss")
    of_rows = ("mAP",)

    def __init__(self, labels: int) -> None:
        self.labels, self.row_width = labels, 2 * labels

    def new_state(self) -> Tensor:
        """Return the state of no samples, on the CPU; states are added."""
        return torch.zeros(3 * self.labels + 3, dtype=torch.float64)

    @torch.no_grad()
    def update(self, state: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch in place. `outputs` are logits, (samples, labels) on any device, batch["labels"] are of the same shape."""
        targets = batch[TARGETS].to(outputs.device)
        counted = _counted(targets)
        losses = _losses(outputs.float(), targets).mean(dim=1)[counted].double()
        actual, predicted = targets[counted] == 1, outputs[counted] > 0
        counts = [(actual & predicted).sum(0), predicted.sum(0), actual.sum(0)]
        right = (actual == predicted).all(1).sum()
        sums = torch.stack([right.double(), losses.sum(), counted.sum().double()])
        state += torch.cat([*(count.double() for count in counts), sums]).to(state.device)

    @torch.no_grad()
    def rows(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return targets and logits of each sample of a batch, float32 of shape (samples, 2 * labels)."""
        targets = batch[TARGETS].to(outputs.device)
        return torch.cat([targets, outputs.float()], dim=1)[_counted(targets)]

    def usefulness(self, state: Tensor, labels: Sequence[str], metric: str) -> Usefulness | None:  # noqa: ARG002
        """Return whether a model with this summed state is better than always guessing the same labels, whatever the metric."""
        hits, predicted, actual = state[: 3 * self.labels].view(3, self.labels).cpu().numpy()
        return judge_sets(hits, predicted, actual, float(state[-1]), labels) if actual.any() else None

    def _compute(self, state: Tensor) -> dict[str, float]:
        """Return the metrics as scikit-learn defines them.

        macroF1 is the mean over all labels, with 0 for one that no sample has and none is given; subsetAccuracy the share of
        samples all of whose labels are right; loss the mean binary cross-entropy in nats.
        """
        hits, predicted, actual = state[: 3 * self.labels].view(3, self.labels).cpu()
        right, loss, count = state[-3:].tolist()
        if count == 0:
            return {}
        either = predicted + actual
        f1 = torch.where(either > 0, 2 * hits / either.clamp(min=1), 0)
        total = either.sum().item()
        return {
            "microF1": 2 * hits.sum().item() / total if total else 0.0,
            "macroF1": f1.mean().item(),
            "subsetAccuracy": right / count,
            "loss": loss / count,
        }

    def _compute_of_rows(self, rows: Tensor) -> dict[str, float]:
        """Return the mean over all labels of the average precision, 0 for a label that no sample has."""
        values = rows.cpu().numpy()
        if not np.isfinite(values).all():
            return {"mAP": float("nan")}
        targets, logits = values[:, : self.labels].T == 1, values[:, self.labels :].T
        return {"mAP": float(np.mean([average_precision(*pair) for pair in zip(targets, logits, strict=True)]))}
