"""Contrast: texts that belong together are to be closer than others, by the cosines of their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unfreeze_trainer.objectives.base import IGNORED, SAMPLES, TARGETS
from unfreeze_trainer.objectives.coupled import Coupled
from unfreeze_trainer.objectives.retrieval import LabelRetrieval, PairRetrieval
from unfreeze_trainer.objectives.targets import Encoder, Targets

TEMPERATURE = 0.05
"""What cosines are divided by where the job says nothing: 1 / 20, sentence-transformers' scale."""


class _Contrast(Coupled):
    """Base of both; outputs are (samples, texts, width).

    Parameters
    ----------
    learned
        What the training data says.
    temperature
        What cosines are divided by.
    """

    def __init__(self, learned: Encoder[Any], temperature: float = TEMPERATURE) -> None:
        super().__init__(learned)
        self.outputs: Sequence[str] = ()
        self.temperature = temperature

    def collate(
        self, targets: Targets, indices: Sequence[int], unread: AbstractSet[int] = frozenset()
    ) -> dict[str, Tensor]:
        """Return the ids of a batch's texts or labels, int64, and which samples they are of. Parameters as of Objective."""
        return super().collate(targets, indices, unread) | {SAMPLES: torch.tensor(list(indices) or [-1])}

    def counted(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return which rows of a batch are samples and no padding, bool of shape (samples,)."""
        return batch[TARGETS].view(len(batch[TARGETS]), -1)[:, 0] != IGNORED

    def answer(self, outputs: str) -> str:
        """Return a Python expression for the vectors of some texts."""
        return outputs


class PairContrast(_Contrast):
    """Cross-entropy of each anchor's positive among the positives and negatives of all pairs of a step.

    That is InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) with in-batch negatives, as sentence-transformers'
    MultipleNegativesRankingLoss computes it of a batch without duplicates.

    Notes
    -----
    A text that belongs to an anchor is no negative for it: those equal to its positive or to itself are left out, and so are
    the positives of anchors with the same text.
    """

    def __init__(self, learned: Encoder[Any], temperature: float = TEMPERATURE) -> None:
        super().__init__(learned, temperature)
        self.metrics = PairRetrieval(temperature)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each pair in nats, float32 of shape (samples,). Parameters as of Coupled; targets are ids."""
        vectors = functional.normalize(outputs, dim=-1)
        documents = vectors[:, 1:].transpose(0, 1).flatten(0, 1)  # the positives of all, then their negatives
        anchor, positive, texts = targets[:, :1], targets[:, 1:2], targets[:, 1:].T.flatten()
        belongs = (texts == positive) | (texts == anchor)
        belongs[:, : len(targets)] |= anchor == anchor.T
        own = torch.arange(len(targets), device=outputs.device)
        belongs[own, own] = False
        scores = vectors[:, 0] @ documents.T / self.temperature
        return functional.cross_entropy(scores.masked_fill(belongs, float("-inf")), own, reduction="none")


class LabelContrast(_Contrast):
    """Supervised contrast: each text of a step against all others, those of its label being its positives.

    Khosla et al. 2020, arXiv 2004.11362, equation 2. A text whose label no other text of the step has is without loss.
    """

    def __init__(self, learned: Encoder[Any], temperature: float = TEMPERATURE) -> None:
        super().__init__(learned, temperature)
        self.metrics = LabelRetrieval(temperature)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each text in nats, float32 of shape (samples,). Parameters as of Coupled; targets are labels."""
        vectors = functional.normalize(outputs[:, 0], dim=-1)
        itself = torch.eye(len(targets), dtype=torch.bool, device=outputs.device)
        scores = (vectors @ vectors.T / self.temperature).masked_fill(itself, float("-inf"))
        if len(targets) == 1:
            return vectors.sum(dim=1) * 0
        belongs = (targets[:, None] == targets) & ~itself
        shares = functional.log_softmax(scores, dim=1).masked_fill(~belongs, 0.0)
        return -shares.sum(dim=1) / belongs.sum(dim=1).clamp(min=1)
