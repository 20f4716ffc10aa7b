"""Similarity: the cosine of two vectors is to say how similar their texts are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unfreeze_trainer.objectives.base import SAMPLES, TARGETS, Objective
from unfreeze_trainer.objectives.contrast import TEMPERATURE
from unfreeze_trainer.objectives.coupled import Coupled
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.objectives.regression import pearson, spearman
from unfreeze_trainer.objectives.targets import Targets
from unfreeze_trainer.objectives.targets.relations import Scores


class _Similarity(Objective):
    """Base of both; outputs are (samples, 2, width), targets float64 of shape (samples, 1)."""

    def __init__(self, learned: Scores) -> None:
        super().__init__(learned)
        self.outputs: Sequence[str] = ()
        self.metrics = SimilarityMetrics(self)

    def collate(
        self, targets: Targets, indices: Sequence[int], unread: AbstractSet[int] = frozenset()
    ) -> dict[str, Tensor]:
        """Return the scores of a batch, float64 of shape (samples, 1), and which samples they are of. Parameters as of Objective."""
        return super().collate(targets, indices, unread) | {SAMPLES: torch.tensor(list(indices) or [-1])}

    def padding(self, values: np.ndarray) -> np.ndarray:
        """Return the target of a row of padding, which is no number."""
        return np.full((1, *values.shape[1:]), np.nan)

    def counted(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return which rows of a batch are samples and no padding, bool of shape (samples,)."""
        return ~batch[TARGETS].isnan().any(dim=1)

    def answer(self, outputs: str) -> str:
        """Return a Python expression for the vectors of some texts."""
        return outputs


class CosineSimilarity(_Similarity):
    """Squared distance of the cosine from the score, as sentence-transformers' CosineSimilarityLoss."""

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return each sample's loss, float32 of shape (samples,); 0 for a row of padding."""
        kept = self.counted(batch)
        # A product with 0 would leave NaN in the gradients.
        wanted = torch.where(kept[:, None], batch[TARGETS], 0.0)[:, 0].float().to(outputs.device)
        return (cosines(outputs) - wanted).square() * kept.to(outputs.device)


class CoSENT(_Similarity, Coupled):
    """log(1 + sum of exp((cosine - other cosine) / temperature)) over pairs of samples of which the other has a higher score.

    Su 2022, as sentence-transformers' CoSENTLoss. It is one number of all samples: each has it.

    Parameters
    ----------
    learned
        The scores.
    temperature
        What cosines are divided by.
    """

    def __init__(self, learned: Scores, temperature: float = TEMPERATURE) -> None:
        super().__init__(learned)
        self.temperature = temperature

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, once for each sample, float32 of shape (samples,). Parameters as of Coupled."""
        scores, wanted = cosines(outputs) / self.temperature, targets[:, 0]
        gaps = (scores[:, None] - scores)[wanted[:, None] < wanted]
        return torch.cat([gaps.new_zeros(1), gaps]).logsumexp(dim=0).expand(len(scores))


def cosines(outputs: Tensor) -> Tensor:
    """Return the cosine of each sample's two vectors, float32 of shape (samples,)."""
    first, second = functional.normalize(outputs.float(), dim=-1).unbind(dim=1)
    return (first * second).sum(dim=-1)


class SimilarityMetrics(Metrics):
    """spearman and pearson of cosines and scores, and the mean loss; CoSENT's is left out, which is none of single samples.

    The state is float64 of shape (samples, 4): of each sample of the split cosine, score, loss, and 1 once it is there. Every
    worker fills in its own samples, as of RegressionMetrics.

    Parameters
    ----------
    objective
        Says what the loss is.
    """

    names = ("spearman", "pearson", "loss")

    def __init__(self, objective: _Similarity) -> None:
        self._objective = objective

    def new_state(self) -> Tensor:
        """Return the state of a split without samples."""
        return self.state_of(0)

    def state_of(self, samples: int) -> Tensor:
        """Return the state before the samples of a split of so many, on the CPU; states are added."""
        return torch.zeros(samples, 4, dtype=torch.float64)

    @torch.no_grad()
    def update(self, state: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch in place. `outputs` are (samples, 2, width) on any device."""
        kept = self._objective.counted(batch)
        wanted = batch[TARGETS][:, 0].to(outputs.device)
        losses = torch.zeros_like(wanted) if self._objective.couples else self._objective.loss(outputs, batch)
        seen = torch.stack([cosines(outputs).double(), wanted, losses.double(), torch.ones_like(wanted)], dim=1)
        state[batch[SAMPLES][kept].to(state.device)] += seen[kept.to(outputs.device)].to(state.device)

    def undefined(self, targets: Targets) -> dict[str, str]:
        """Return the metrics that samples with such targets do not have, each with the reason."""
        found = {}
        if (targets.values == targets.values[0]).all():
            why = "all its scores are the same; hold out more"
            found = {"spearman": why, "pearson": why}
        if self._objective.couples:
            found["loss"] = "CoSENT's is one of a batch, and not a mean over samples; set it to spearman"
        return found

    def _compute(self, state: Tensor) -> dict[str, float]:
        """Return the metrics as SciPy defines them; NaN for correlations that are not defined."""
        seen = state.cpu().numpy()
        seen = seen[seen[:, -1] > 0]
        if not len(seen):
            return {}
        cosine, score, losses, _ = seen.T
        found = {"spearman": spearman(score, cosine), "pearson": pearson(score, cosine)}
        return found if self._objective.couples else found | {"loss": float(losses.mean())}
