"""Regression: each sample has one or more numbers, which the model predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unfreeze_api.contracts.report import Usefulness
from unfreeze_trainer.objectives.answers import Amounts
from unfreeze_trainer.objectives.base import SAMPLES, TARGETS, Objective, exact
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.objectives.targets import Targets
from unfreeze_trainer.objectives.targets.numbers import Numbers
from unfreeze_trainer.usefulness import judge_numbers


class Regression(Objective):
    """Squared error, or Huber's, of numbers that are standardised by mean and standard deviation of the training split.

    Parameters
    ----------
    learned
        Names, mean and standard deviation of the numbers.
    loss
        Whose mean over a sample's numbers is its loss.
    delta
        Error from which Huber's loss is linear, in standard deviations.
    """

    problem_type = "regression"
    not_convex = ""

    def __init__(
        self,
        learned: Numbers,
        loss: Literal["MeanSquaredError", "Huber"] = "MeanSquaredError",
        delta: float = 1.0,
    ) -> None:
        super().__init__(learned)
        self.outputs, self.mean, self.std = learned.names, learned.mean, learned.std
        self.scale = learned.std.tolist(), learned.mean.tolist()
        self.metrics = RegressionMetrics(self)
        self.answers = Amounts(self.outputs)
        self._loss, self._delta = loss, delta
        self.blank_loss = 1.0 if loss == "MeanSquaredError" else min(0.5, 0.8 * delta)  # of normal ones, about

    def collate(
        self, targets: Targets, indices: Sequence[int], unread: AbstractSet[int] = frozenset()
    ) -> dict[str, Tensor]:
        """Return the numbers of a batch, float64 of shape (samples, targets), and which samples they are of."""
        places = list(indices) or [-1]
        return super().collate(targets, indices, unread) | {SAMPLES: torch.tensor(places)}

    def padding(self, values: np.ndarray) -> np.ndarray:
        """Return the target of a row of padding, which is no number, float64 of shape (1, targets)."""
        return np.full((1, *values.shape[1:]), np.nan)

    def counted(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return which rows of a batch are samples and no padding, bool of shape (samples,)."""
        return ~batch[TARGETS].isnan().any(dim=1)

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return each sample's loss, in standard deviations or their squares, float32 of shape (samples,); 0 for padding."""
        kept = self.counted(batch)
        mean, std = (torch.as_tensor(values, device=kept.device) for values in (self.mean, self.std))
        # A product with 0 would leave NaN in the gradients.
        found = exact(outputs)
        wanted = torch.where(kept[:, None], (batch[TARGETS] - mean) / std, 0.0).to(found)
        if self._loss == "Huber":
            losses = functional.huber_loss(found, wanted, reduction="none", delta=self._delta)
        else:
            losses = functional.mse_loss(found, wanted, reduction="none")
        return losses.mean(dim=1) * kept.to(outputs.device)

    @torch.no_grad()
    def keep(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return predictions in the units of the data, float64 of shape (samples, 1, targets), and states, as Objective has them."""
        return self.in_units(outputs)[:, None], super().keep(outputs, batch)[1]

    def in_units(self, outputs: Tensor) -> Tensor:
        """Return outputs in the units of the data, float64 of shape (samples, targets)."""
        mean, std = (torch.as_tensor(values, device=outputs.device) for values in (self.mean, self.std))
        return outputs.double() * std + mean

    def answer(self, outputs: str) -> str:
        """Return a Python expression for the number that an export gives one sample; of several a dict by their names."""
        return f"{outputs}.item()" if len(self.outputs) == 1 else f"dict(zip(labels, {outputs}[0].tolist()))"


class RegressionMetrics(Metrics):
    """rmse, mae, r2, pearson, spearman and loss of one split: in the units of the data, the loss in those of training.

    The state is float64 of shape (samples, 2 * targets + 2): of each sample of the split the predictions, the targets, the
    loss, and 1 once it is there. Every worker fills in its own samples, so that the sum of all states has each as it is: no
    ranks can be told from sums, and no sum depends on how many workers there are.

    Parameters
    ----------
    objective
        Says what the loss is.
    """

    names = ("rmse", "mae", "r2", "pearson", "spearman", "loss")

    def __init__(self, objective: Regression) -> None:
        self._objective = objective
        self._targets = len(objective.outputs)

    def new_state(self) -> Tensor:
        """Return the state of a split without samples."""
        return self.state_of(0)

    def state_of(self, samples: int) -> Tensor:
        """Return the state before the samples of a split of so many, on the CPU; states are added."""
        return torch.zeros(samples, 2 * self._targets + 2, dtype=torch.float64)

    @torch.no_grad()
    def update(self, state: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch in place. `outputs` are standardised, (samples, targets) on any device."""
        kept = self._objective.counted(batch)
        losses = self._objective.loss(outputs, batch).double()[:, None]
        seen = [self._objective.in_units(outputs), batch[TARGETS].to(outputs.device), losses, torch.ones_like(losses)]
        state[batch[SAMPLES][kept].to(state.device)] += torch.cat(seen, dim=1)[kept.to(outputs.device)].to(state.device)

    def usefulness(self, state: Tensor, labels: Sequence[str], metric: str) -> Usefulness | None:  # noqa: ARG002
        """Return whether a model with this summed state is better than always saying the mean."""
        seen = state.cpu().numpy()
        predicted, actual, _ = np.split(seen[seen[:, -1] > 0, :-1], [self._targets, 2 * self._targets], axis=1)
        return judge_numbers(actual, predicted, metric)

    def _compute(self, state: Tensor) -> dict[str, float]:
        """Return the metrics as scikit-learn and SciPy define them; NaN for r2 and correlations that are not defined."""
        seen = state.cpu().numpy()
        seen = seen[seen[:, -1] > 0]
        if not len(seen):
            return {}
        predicted, actual, losses = np.split(seen[:, :-1], [self._targets, 2 * self._targets], axis=1)
        return {
            "rmse": float(np.average(np.sqrt(np.average((actual - predicted) ** 2, axis=0)))),
            "mae": float(np.average(np.average(np.abs(predicted - actual), axis=0))),
            "r2": float(np.average(_r2(actual, predicted))),
            "pearson": float(np.mean([pearson(*pair) for pair in zip(actual.T, predicted.T, strict=True)])),
            "spearman": float(np.mean([spearman(*pair) for pair in zip(actual.T, predicted.T, strict=True)])),
            "loss": float(losses.mean()),
        }


def _r2(actual: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the share of each column's variance that is explained, float64 of shape (targets,); NaN where there is none."""
    total = np.sum((actual - np.average(actual, axis=0)) ** 2, axis=0)
    total[(total == 0) | (actual == actual[0]).all(axis=0)] = np.nan  # the mean of equal numbers is not always theirs
    return 1 - np.sum((actual - predicted) ** 2, axis=0) / total


def pearson(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Return the linear correlation, rounded where SciPy does; NaN where one of both is constant."""
    if _constant(actual) or _constant(predicted):
        return float("nan")
    one, other = (_normed(values - values.mean()) for values in (actual, predicted))
    found = float(np.clip(np.vecdot(one, other), -1.0, 1.0))
    return round(found) if len(actual) == 2 else found  # noqa: PLR2004 - through two points goes a line


def _normed(values: np.ndarray) -> np.ndarray:
    most = np.abs(values).max()
    normed: np.ndarray = values / (most * np.linalg.norm(values / most, axis=0))  # with an axis it sums as SciPy does
    return normed


def spearman(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Return the correlation of ranks, equal values with the mean of theirs; NaN where one of both is constant."""
    if _constant(actual) or _constant(predicted):
        return float("nan")
    ranks = np.stack([_ranks(actual), _ranks(predicted)], axis=1)
    return float(np.corrcoef(ranks, rowvar=False)[1, 0])


def _constant(values: np.ndarray) -> bool:
    return bool((values == values[0]).all())


def _ranks(values: np.ndarray) -> np.ndarray:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return means
