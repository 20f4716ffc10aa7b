"""What a model learns: how targets become tensors, the loss, metrics as sums. It knows no file and no model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from unfreeze_trainer.objectives.answers import ABSENT, ANSWERED, Answers
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.objectives.targets import Encoder, Targets

IGNORED = -100
"""Target of a row that only fills a batch up (torch's ignore_index): it has no loss and is not counted."""
TARGETS = "labels"
"""What a batch calls its targets, beside the inputs of the model."""
PACKED = "packed"
"""What a batch calls the number of the sample in it that each token is of, -1 of padding, where several stand in a row."""
LEARNED = "learned"
"""What a batch calls row and column of each output that counts, int64 of shape (outputs, 2), where the others need not be computed."""
SAMPLES = "samples"
"""What a batch calls the indices of its samples, where metrics need to know them."""


def exact(outputs: Tensor) -> Tensor:
    """Return outputs in float32 at least."""
    return outputs if outputs.dtype == torch.float64 else outputs.float()


class Objective(ABC):
    """One for each task; it holds no samples.

    Parameters
    ----------
    learned
        What the training data says.
    """

    has_words: ClassVar[bool] = False
    """Whether a sample has words, and each of them its prediction."""
    couples: ClassVar[bool] = False
    """Whether the loss of a sample depends on the others of the step, on whatever rank, as a contrastive one does: then
    a step cannot be the sum of its parts."""
    problem_type: ClassVar[Literal["single_label_classification", "multi_label_classification", "regression"]]
    """What transformers calls it, in the model's configuration."""
    pipelined: ClassVar[bool] = False
    """Whether the pipelines of the libraries give the same answer as `answer`."""
    not_convex: str = "its loss is no convex function of the outputs of each sample"
    """Why no solver can find the best linear head, as a part of a message; empty where one can."""
    blank_loss: float = 0.0
    """About the mean loss of a unit while a new head says the same of every sample; 0 where only the first step shows it."""
    balances: bool = False
    """Whether samples of each group of the targets are drawn as often as those of any other."""
    outputs: Sequence[str]
    """What each output of the model stands for."""
    scale: tuple[Sequence[float], Sequence[float]] | None = None
    """Factor and offset of each output, by which an export gives it in the units of the data; None where it does so."""
    metrics: Metrics
    answers: Answers | None = None
    """What the outputs say of each row, for predictions; None where they are no answers."""

    def __init__(self, learned: Encoder[Any]) -> None:
        self.labels = learned.labels

    def collate(
        self, targets: Targets, indices: Sequence[int], unread: AbstractSet[int] = frozenset()
    ) -> dict[str, Tensor]:
        """Return the targets of a batch.

        Parameters
        ----------
        targets
            Of a split.
        indices
            Into it; none for a row of padding.
        unread
            Those that could not be read, which are padding too.
        """
        values = targets.values[np.asarray(indices)] if len(indices) else self.padding(targets.values)
        if not unread.isdisjoint(indices):
            values = values.copy()
            values[np.isin(indices, list(unread))] = self.padding(values)
        return {TARGETS: torch.from_numpy(values)}

    def padding(self, values: np.ndarray) -> np.ndarray:
        """Return the target of a row of padding, of shape (1, ...) as the others are; another where -100 is a value."""
        return np.full((1, *values.shape[1:]), IGNORED, dtype=values.dtype)

    def counted(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return which rows of a batch are samples and no padding, bool of shape (samples,)."""
        return batch[TARGETS] != IGNORED

    def rows_of(self, targets: Targets) -> np.ndarray:
        """Return how many rows of predictions each sample has, int64 of shape (samples,)."""
        return np.ones(len(targets), dtype=np.int64)

    @torch.no_grad()
    def keep(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return what `answers` takes of each row of a batch, and the rows' states.

        Returns
        -------
        tuple
            Outputs, of shape (samples, rows, outputs), and states, uint8 of shape (samples, rows); the rows beyond a sample's own
            fill up.
        """
        states = torch.where(self.counted(batch), ANSWERED, ABSENT).to(torch.uint8)
        return outputs.float()[:, None], states[:, None]

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the losses of each sample's units, of shape (samples,); 0 for a row of padding.

        It is float32, of outputs in float64 it is float64.
        """

    @abstractmethod
    def answer(self, outputs: str) -> str:
        """Return a Python expression for what the model says of one sample.

        Parameters
        ----------
        outputs
            Expression for its outputs, (1, outputs); beside it `labels` are the names of the outputs.
        """
