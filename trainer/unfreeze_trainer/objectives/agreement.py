"""Agreement of modalities: what belongs together is to be closer than all else of a step, by the cosines of its vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unfreeze_trainer.objectives.base import IGNORED, SAMPLES, TARGETS
from unfreeze_trainer.objectives.coupled import Coupled
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.objectives.retrieval import across
from unfreeze_trainer.objectives.targets import Encoder, Targets

_DIGIT = 4096
"""Whole numbers stand in rows as two digits of this base: each is exact in float32."""
_BEST = (1, 5)


def pairs_of(towers: int) -> Iterator[tuple[int, int]]:
    """Yield each pair of towers, the earlier one first."""
    return ((one, other) for one in range(towers) for other in range(one + 1, towers))


class Agreement(Coupled):
    """Cross-entropy of what belongs to each sample among all samples of a step, from each modality to each other one.

    Both ways count alike (Radford et al. 2021, arXiv 2103.00020, figure 3). Outputs are (samples, towers, width): products of
    them are cosines times their learned factor.

    Notes
    -----
    Samples that have a cell in common are no negatives for each other: one picture may have several texts, and a text
    several pictures.
    """

    def __init__(self, learned: Encoder[Any]) -> None:
        super().__init__(learned)
        self.outputs: Sequence[str] = ()
        self.metrics = AgreementMetrics()

    def collate(
        self, targets: Targets, indices: Sequence[int], unread: AbstractSet[int] = frozenset()
    ) -> dict[str, Tensor]:
        """Return the numbers of a batch's cells, int64, and which samples they are of. Parameters as of Objective."""
        return super().collate(targets, indices, unread) | {SAMPLES: torch.tensor(list(indices) or [-1])}

    def counted(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return which rows of a batch are samples and no padding, bool of shape (samples,)."""
        return batch[TARGETS][:, 0] != IGNORED

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each sample in nats, float32 of shape (samples,). Parameters as of Coupled; targets are numbers of cells."""
        same = (targets[:, None] == targets).any(dim=2)
        own = torch.arange(len(targets), device=outputs.device)
        same[own, own] = False
        pairs = list(pairs_of(outputs.shape[1]))
        found = outputs.new_zeros(len(outputs))
        for one, other in pairs:
            scores = (outputs[:, one] @ outputs[:, other].T).masked_fill(same, float("-inf"))
            for way in (scores, scores.T):
                found = found + functional.cross_entropy(way, own, reduction="none")
        return found / (2 * len(pairs))

    def answer(self, outputs: str) -> str:
        """Return a Python expression for the vectors of some samples."""
        return outputs


class AgreementMetrics(Metrics):
    """Recall of each direction, and loss, of one split.

    Recall is the share of the distinct cells of one modality that have a cell that belongs to them among the 1 or 5 nearest ones
    of all distinct cells of another. A row has the index of its sample, the numbers of its cells, and their vectors.

    Notes
    -----
    The loss is the mean, over all that belongs together and over both directions, of the cross-entropy among itself and all of
    the split that does not belong. It is no mean over batches: a batch has fewer others.
    """

    names = (
        *("recallAt1", "recallAt5", "forwardRecallAt1", "forwardRecallAt5", "backwardRecallAt1", "backwardRecallAt5"),
        "loss",
    )
    of_rows = names
    row_width = 1
    """Until number and width of vectors are known."""

    def __init__(self) -> None:
        self._towers = 0

    def set_vectors(self, towers: int, width: int) -> None:
        """Take note of how many vectors a sample has, and how wide each is."""
        self._towers = towers
        self.row_width = 2 + 2 * towers + towers * width

    def new_state(self) -> Tensor:
        """Return the state of no samples: all is computed of rows."""
        return torch.zeros(1)

    def update(self, state: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add nothing: all is computed of rows."""

    @torch.no_grad()
    def rows(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the samples of a batch, float32 of shape (samples, row_width); `outputs` are (samples, towers, width)."""
        targets = batch[TARGETS].to(outputs.device)
        whole = torch.cat([batch[SAMPLES][:, None].to(outputs.device), targets], dim=1)
        digits = torch.stack([whole // _DIGIT, whole % _DIGIT], dim=2).flatten(1)
        return torch.cat([digits.float(), outputs.float().flatten(1)], dim=1)[targets[:, 0] != IGNORED]

    def _compute(self, state: Tensor) -> dict[str, float]:  # noqa: ARG002 - all is computed of rows
        return {}

    @torch.no_grad()
    def _compute_of_rows(self, rows: Tensor) -> dict[str, float]:
        columns = 1 + self._towers
        digits = rows[:, : 2 * columns].long().view(-1, columns, 2)
        numbers = digits[..., 0] * _DIGIT + digits[..., 1]
        order = numbers[:, 0].argsort()
        cells, outputs = numbers[order, 1:], rows[order, 2 * columns :].reshape(len(rows), self._towers, -1)
        scale = float(outputs.square().sum(dim=-1).mean())
        vectors = functional.normalize(outputs, dim=-1)
        found: dict[str, list[float]] = {}
        for one, other in pairs_of(self._towers):
            for way, (asks, told) in {"forward": (one, other), "backward": (other, one)}.items():
                hits, loss = across(cells[:, [asks, told]], vectors[:, [asks, told]], 1 / scale)
                found.setdefault("loss", []).append(loss)
                for best in _BEST:
                    share = float(hits[:, :best].any(dim=1).double().mean())
                    for name in (f"recallAt{best}", f"{way}RecallAt{best}"):
                        found.setdefault(name, []).append(share)
        return {name: sum(values) / len(values) for name, values in found.items()}
