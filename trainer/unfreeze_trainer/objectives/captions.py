"""Pictures and texts that belong together are told from all others of a step: CLIP's softmax, or SigLIP's sigmoid of each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from math import comb
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unfreeze_api.tasks.image_text import RECALLS
from unfreeze_trainer.objectives.base import IGNORED, SAMPLES, TARGETS
from unfreeze_trainer.objectives.coupled import Coupled
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.objectives.retrieval import across
from unfreeze_trainer.objectives.targets.pairings import ABSENT

if TYPE_CHECKING:
    from unfreeze_trainer.objectives.targets import Targets
    from unfreeze_trainer.objectives.targets.captions import Captions

_DIGIT = 4096
"""Whole numbers stand in rows as two digits of this base: each is exact in float32."""
_NUMBERS = 4
"""Of a row: its sample, picture, text and class."""
_CHUNK = 2**22
"""Products that are held at a time, 16 MiB."""
_BEST = (1, 5, 10)


class CaptionContrast(Coupled):
    """The loss of a model that sees and reads.

    Outputs are (samples, 2, width): a vector of the picture and one of the text, whose products are the model's logits.

    Notes
    -----
    Softmax: cross-entropy of what belongs to each sample among all samples of a step, the mean of both ways (Radford et al.
    2021, arXiv 2103.00020, figure 3). Sigmoid: whether each picture and each text of a step belong together, the sum over a
    text's pictures (Zhai et al. 2023, arXiv 2303.15343, algorithm 1). In both, samples that have a picture or a text in common
    are no negatives for each other.

    Parameters
    ----------
    learned
        Of the targets.
    sigmoid
        Which of the two.
    width
        Of a vector's part that is compared; beyond it stands what makes the products logits.
    prompts
        How many there are of each class.
    """

    def __init__(self, learned: Captions, *, sigmoid: bool, width: int, prompts: int) -> None:
        super().__init__(learned)
        self.outputs: Sequence[str] = ()
        self._sigmoid = sigmoid
        self.metrics = CaptionMetrics(learned, sigmoid=sigmoid, width=width, prompts=prompts)

    def collate(
        self, targets: Targets, indices: Sequence[int], unread: AbstractSet[int] = frozenset()
    ) -> dict[str, Tensor]:
        """Return the numbers of a batch's cells and classes, int64, and which samples they are of. Parameters as of Objective."""
        return super().collate(targets, indices, unread) | {SAMPLES: torch.tensor(list(indices) or [-1])}

    def counted(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return which rows of a batch are samples and no padding, bool of shape (samples,)."""
        return batch[TARGETS].view(len(batch[TARGETS]), -1)[:, 0] != IGNORED

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each sample in nats, float32 of shape (samples,). Parameters as of Coupled; vectors beyond two are left out."""
        outputs, cells = outputs[:, :2], targets[:, :2]
        common = _belongs(cells, cells)
        if self._sigmoid:
            return _sigmoid_losses(outputs[:, 1], outputs[:, 0], common)
        return _softmax_losses(outputs[:, 1], outputs[:, 0], common)

    def answer(self, outputs: str) -> str:
        """Return a Python expression for the vectors of some samples."""
        return outputs


def _belongs(cells: Tensor, others: Tensor) -> Tensor:
    """Return which rows have a cell in common, bool of shape (rows, other rows)."""
    return (cells[:, None] == others).any(dim=2)


def _softmax_losses(texts: Tensor, images: Tensor, common: Tensor) -> Tensor:
    """Return of each row its cross-entropy among all rows, the mean of both ways."""
    own = torch.arange(len(texts), device=texts.device)
    scores = (texts @ images.T).masked_fill(common & (own[:, None] != own), float("-inf"))
    ways = (functional.cross_entropy(way, own, reduction="none") for way in (scores, scores.T))
    return torch.stack([*ways]).mean(dim=0)


def _sigmoid_losses(texts: Tensor, images: Tensor, common: Tensor, first: int = 0) -> Tensor:
    """Return of each text the sum over the pictures of all rows, of which its own has index `first` and so on."""
    scores = texts @ images.T
    own = torch.arange(len(texts), device=texts.device)
    found = functional.softplus(scores).masked_fill(common, 0.0)
    found[own, own + first] = functional.softplus(-scores[own, own + first])
    return found.sum(dim=1)


class CaptionMetrics(Metrics):
    """Recall of both ways, accuracy by prompts, and loss, of one split.

    Recall is as of AgreementMetrics. A row has the index of its sample, the numbers of picture, text and class, and the vectors
    of picture, text and of the prompts that it brings along.

    Notes
    -----
    The loss is that of a step which has all samples of the split: it is no mean over batches, which have fewer others.

    Parameters
    ----------
    learned, sigmoid, width, prompts
        As of CaptionContrast.
    """

    names: ClassVar[tuple[str, ...]] = (*RECALLS, "zeroShotAccuracy", "loss")
    of_rows: ClassVar[tuple[str, ...]] = names

    def __init__(self, learned: Captions, *, sigmoid: bool, width: int, prompts: int) -> None:
        self._learned, self._sigmoid, self._width, self._prompts = learned, sigmoid, width, prompts
        self.row_width = 2 * _NUMBERS + 2 * (width + 1)

    def undefined(self, targets: Targets) -> dict[str, str]:
        """Return the metrics that samples with such targets do not have, each with the reason."""
        found = dict(super().undefined(targets))
        if not _has_classes(targets.values):
            found["zeroShotAccuracy"] = "no row says what its picture shows: name the column in columns.className"
        return found

    def new_state(self) -> Tensor:
        """Return the state of no samples: all is computed of rows."""
        return torch.zeros(1)

    def update(self, state: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add nothing: all is computed of rows."""

    @torch.no_grad()
    def rows(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the samples of a batch, float32; `outputs` are (samples, 2 and as many prompts as each brings along, width).

        One whose picture cannot be read is there for its prompts.
        """
        targets = batch[TARGETS].to(outputs.device)
        whole = torch.cat([batch[SAMPLES][:, None].to(outputs.device), targets], dim=1)
        digits = torch.stack([whole.div(_DIGIT, rounding_mode="floor"), whole % _DIGIT], dim=2).flatten(1)
        return torch.cat([digits.float(), outputs.float().flatten(1)], dim=1)[whole[:, 0] >= 0]

    def _compute(self, state: Tensor) -> dict[str, float]:  # noqa: ARG002 - all is computed of rows
        return {}

    @torch.no_grad()
    def _compute_of_rows(self, rows: Tensor) -> dict[str, float]:
        digits = rows[:, : 2 * _NUMBERS].long().view(-1, _NUMBERS, 2)
        numbers = digits[..., 0] * _DIGIT + digits[..., 1]
        order = numbers[:, 0].argsort()
        numbers = numbers[order]
        outputs = rows[order, 2 * _NUMBERS :].view(len(rows), -1, self._width + self._sigmoid)
        read = numbers[:, 1] != IGNORED
        if not read.any():
            return {}
        accuracy = self._zero_shot(numbers[:, 0], numbers[:, 3].where(read, ABSENT), outputs[..., : self._width])
        numbers, outputs = numbers[read], outputs[read]
        vectors = functional.normalize(outputs[..., : self._width], dim=-1)
        scale = float(outputs[..., : self._width].square().sum(dim=-1).mean())
        cells, found, losses = numbers[:, 1:3], dict[str, float](), list[float]()
        for way, sides in (("imageToText", [0, 1]), ("textToImage", [1, 0])):
            hits, loss = across(cells[:, sides], vectors[:, sides], 1 / scale)
            losses.append(loss)
            for best in _BEST:
                found[f"{way}RecallAt{best}"] = float(hits[:, :best].any(dim=1).double().mean())
        found["loss"] = self._sigmoid_loss(cells, outputs) if self._sigmoid else sum(losses) / len(losses)
        return found if accuracy is None else found | {"zeroShotAccuracy": accuracy}

    @staticmethod
    def _sigmoid_loss(cells: Tensor, outputs: Tensor) -> float:
        total, images = 0.0, outputs[:, 0]
        for first in range(0, len(cells), step := max(1, _CHUNK // len(cells))):
            part = slice(first, first + step)
            common = _belongs(cells[part], cells)
            total += float(_sigmoid_losses(outputs[part, 1], images, common, first).double().sum())
        return total / len(cells)

    def _zero_shot(self, samples: Tensor, classes: Tensor, vectors: Tensor) -> float | None:
        """Return the share of pictures whose class has the nearest prompts; None where none has a class, or a prompt is missing."""
        vectors = functional.normalize(vectors, dim=-1)
        each, asked = vectors.shape[1] - 2, classes != ABSENT
        count = len(self._learned.classes) * self._prompts
        if not each or not asked.any():
            return None
        prompts = vectors.new_zeros(count, vectors.shape[2])
        there = torch.zeros(count, dtype=torch.bool)
        for place in range(each):
            which = (samples * each + place) % count
            prompts[which], there[which] = vectors[:, 2 + place], True
        if not there.all():
            return None
        means = functional.normalize(prompts.view(-1, self._prompts, prompts.shape[1]).mean(dim=1), dim=-1)
        return float(((vectors[asked, 0] @ means.T).argmax(dim=1) == classes[asked]).double().mean())


def _has_classes(values: np.ndarray) -> bool:
    return values.ndim > 1 and bool((values[:, 2] != ABSENT).any())


def prompts_of(classes: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Return all prompts: of each class one for each template."""
    return [template.replace("{}", name) for name in classes for template in templates]


def brought(samples: Sequence[int], each: int, count: int) -> list[int]:
    """Return which of so many prompts samples bring along, by their indices: the first of all, then the second of all, and so on."""
    return [(max(sample, 0) * each + place) % count for place in range(each) for sample in samples]


def chance_of(pairs: np.ndarray, best: int) -> float:
    """Return the recall of guessing, the mean over distinct first ones.

    Parameters
    ----------
    pairs
        Numbers of what belongs together, (rows, 2): the first looks among the distinct second ones.
    best
        How many different ones are guessed.
    """
    pairs = np.unique(pairs, axis=0)
    others = len(np.unique(pairs[:, 1]))
    right, times = np.unique(np.unique(pairs[:, 0], return_counts=True)[1], return_counts=True)
    missed = [comb(others - int(count), best) / comb(others, best) if others >= best else 0.0 for count in right]
    return 1 - float(np.average(missed, weights=times))
