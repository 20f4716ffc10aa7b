"""Agreement of modalities: what belongs together is to be closer than all else of a step, by the cosines of its vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import permutations
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from unfreeze_trainer.objectives.base import IGNORED, SAMPLES, TARGETS
from unfreeze_trainer.objectives.coupled import Coupled
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.objectives.retrieval import across
from unfreeze_trainer.objectives.targets import Encoder, Targets
from unfreeze_trainer.objectives.targets.pairings import ABSENT

_DIGIT = 4096
"""Whole numbers stand in rows as two digits of this base: each is exact in float32."""
_BEST = (1, 5)
_FEW = 2
"""Of so many modalities forward and backward are all directions."""
MODALITIES = ("image", "text", "audio")
"""In the order of the metrics' names."""


def pairs_of(modalities: int) -> Iterator[tuple[int, int]]:
    """Yield each pair of modalities, the earlier one first."""
    return ((one, other) for one in range(modalities) for other in range(one + 1, modalities))


def _compared(there: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Yield each pair of modalities with the indices of the samples that have both; `there` is bool of shape (samples, modalities)."""
    for one, other in pairs_of(there.shape[1]):
        yield one, other, (there[:, one] & there[:, other]).nonzero()[:, 0]


class Agreement(Coupled):
    """Cross-entropy of what belongs to each sample among all samples of a step, from each modality to each other one.

    Both ways count alike (Radford et al. 2021, arXiv 2103.00020, figure 3). Outputs are (samples, modalities, width): products of
    them are cosines times their learned factor.

    Notes
    -----
    Samples that have a cell in common are no negatives for each other: one picture may have several texts, and a text
    several pictures. Two modalities are compared over the samples that have both; each such pair of modalities counts alike,
    however few these are.

    Parameters
    ----------
    learned
        Of the targets.
    modalities, width
        What a sample has a vector of, in small letters, and how wide each is.
    """

    def __init__(self, learned: Encoder[Any], modalities: Sequence[str], width: int) -> None:
        super().__init__(learned)
        self.outputs: Sequence[str] = ()
        kind = AgreementMetrics if len(modalities) <= _FEW else AgreementOfThree
        self.metrics = kind(modalities, width)

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
        there = targets != ABSENT
        pairs = [(one, other, rows) for one, other, rows in _compared(there) if len(rows)]
        found = outputs.sum(dim=(1, 2)) * 0  # so that samples without a pair take part in the backward pass
        for one, other, rows in pairs:
            cells, own = targets[rows], torch.arange(len(rows), device=outputs.device)
            same = ((cells[:, None] == cells) & there[rows]).any(dim=2)
            same[own, own] = False
            scores = (outputs[rows, one] @ outputs[rows, other].T).masked_fill(same, float("-inf"))
            weight = len(outputs) / (2 * len(pairs) * len(rows))
            for way in (scores, scores.T):
                losses = functional.cross_entropy(way, own, reduction="none")
                found = found.index_add(0, rows, weight * losses)
        return found

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

    Parameters
    ----------
    modalities, width
        As of Agreement.
    """

    names: ClassVar[tuple[str, ...]] = (
        *("recallAt1", "recallAt5", "forwardRecallAt1", "forwardRecallAt5", "backwardRecallAt1", "backwardRecallAt5"),
        "loss",
    )
    of_rows: ClassVar[tuple[str, ...]] = names

    def __init__(self, modalities: Sequence[str], width: int) -> None:
        self._modalities = modalities
        self.row_width = 2 + (2 + width) * len(modalities)

    def new_state(self) -> Tensor:
        """Return the state of no samples: all is computed of rows."""
        return torch.zeros(1)

    def update(self, state: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add nothing: all is computed of rows."""

    @torch.no_grad()
    def rows(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the samples of a batch, float32 of shape (samples, row_width); `outputs` are (samples, modalities, width)."""
        targets = batch[TARGETS].to(outputs.device)
        whole = torch.cat([batch[SAMPLES][:, None].to(outputs.device), targets], dim=1)
        digits = torch.stack([whole // _DIGIT, whole % _DIGIT], dim=2).flatten(1)
        return torch.cat([digits.float(), outputs.float().flatten(1)], dim=1)[targets[:, 0] != IGNORED]

    def _compute(self, state: Tensor) -> dict[str, float]:  # noqa: ARG002 - all is computed of rows
        return {}

    @torch.no_grad()
    def _compute_of_rows(self, rows: Tensor) -> dict[str, float]:
        modalities = self._modalities
        columns = 1 + len(modalities)
        digits = rows[:, : 2 * columns].long().view(-1, columns, 2)
        numbers = digits[..., 0] * _DIGIT + digits[..., 1]
        order = numbers[:, 0].argsort()
        cells, outputs = numbers[order, 1:], rows[order, 2 * columns :].reshape(len(rows), len(modalities), -1)
        there = cells != ABSENT
        scale = float(outputs.square().sum(dim=-1)[there].mean())
        vectors = functional.normalize(outputs, dim=-1)
        found: dict[str, list[float]] = {}
        for one, other, both in _compared(there):
            for asks, told in ((one, other), (other, one)) if len(both) else ():
                hits, loss = across(cells[both][:, [asks, told]], vectors[both][:, [asks, told]], 1 / scale)
                found.setdefault("loss", []).append(loss)
                for best in _BEST:
                    share = float(hits[:, :best].any(dim=1).double().mean())
                    for name in (f"recallAt{best}", f"{self._way(asks, told)}RecallAt{best}"):
                        found.setdefault(name, []).append(share)
        return {name: sum(values) / len(values) for name, values in found.items() if name in self.names}

    def _way(self, asks: int, told: int) -> str:
        """Return what stands before Recall in the name of a metric of one modality to another."""
        return "forward" if asks < told else "backward"


def way(asks: str, told: str) -> str:
    """Return what a direction is called, of modalities in small letters."""
    return f"{asks}To{told.title()}"


class AgreementOfThree(AgreementMetrics):
    """Recall of each direction between three modalities, its mean, and loss, of one split: of each two over the rows that have both."""

    names = ("recallAt1", *(f"{way(*pair)}RecallAt1" for pair in permutations(MODALITIES, 2)), "loss")
    of_rows = names

    def undefined(self, targets: Targets) -> dict[str, str]:
        """Return the metrics that samples with such targets do not have, each with the reason."""
        instead = "three modalities have no two directions: name recallAt1 or loss"
        others = (name for name in AgreementMetrics.names if name not in self.names)
        found = dict(super().undefined(targets)) | dict.fromkeys(others, instead)
        for one, other, both in _compared(torch.from_numpy(targets.values) != ABSENT):
            if not len(both):
                names = [f"{self._way(*pair)}RecallAt1" for pair in ((one, other), (other, one))]
                found |= dict.fromkeys(names, "no row of it has both")
        return found

    def _way(self, asks: int, told: int) -> str:
        return way(self._modalities[asks], self._modalities[told])
