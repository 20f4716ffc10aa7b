"""How well texts find what belongs to them: recall, MRR and nDCG of a split, as sentence-transformers' evaluator has them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unfreeze_trainer.objectives.base import IGNORED, SAMPLES, TARGETS
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.objectives.targets import Targets

BEST = 10
"""How many of what is found count."""
_CHUNK = 2**22
"""Scores that are held at a time, 16 MiB, and as many numbers of other kinds."""
_DIGIT = 4096
"""Whole numbers stand in rows as two digits of this base: each is exact in float32."""


@dataclass(frozen=True)
class _Task:
    """What is looked for, and where."""

    queries: Tensor
    """float32 of shape (queries, width), each of length 1."""
    corpus: Tensor
    """The same of what may be found."""
    belongs: Callable[[int, int], Tensor]
    """Of queries from one to below another: what of the corpus belongs to each, bool of shape (queries, corpus)."""
    apart: bool
    """Whether query i is text i of the corpus, which is not to find itself."""


class Retrieval(Metrics):
    """ndcgAt10, mrrAt10, recallAt1, recallAt10 and loss of one split.

    A row has the index of its sample, the numbers of its targets, and the vectors of its texts.

    Parameters
    ----------
    temperature
        That the loss divides cosines by.

    Notes
    -----
    The loss is the mean, over each text and each that belongs to it, of the cross-entropy of the latter among itself and all
    of the split that do not belong. It is no mean over batches: a batch has fewer others.
    """

    names = ("ndcgAt10", "mrrAt10", "recallAt1", "recallAt10", "loss")
    of_rows = names
    row_width = 1
    """Until the width of vectors is known."""
    texts: ClassVar[int]
    """How many texts of a sample are compared."""

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def set_width(self, width: int) -> None:
        """Take note of how wide a vector is."""
        self.row_width = 2 + 2 * self.texts + self.texts * width

    def new_state(self) -> Tensor:
        """Return the state of no samples: all is computed of rows."""
        return torch.zeros(1)

    def update(self, state: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add nothing: all is computed of rows."""

    @torch.no_grad()
    def rows(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the samples of a batch, float32 of shape (samples, row_width); `outputs` are (samples, texts, width)."""
        targets = batch[TARGETS].reshape(len(outputs), -1)[:, : self.texts].to(outputs.device)
        whole = torch.cat([batch[SAMPLES][:, None].to(outputs.device), targets], dim=1)
        digits = torch.stack([whole // _DIGIT, whole % _DIGIT], dim=2).flatten(1)
        vectors = functional.normalize(outputs.float()[:, : self.texts], dim=-1).flatten(1)
        return torch.cat([digits.float(), vectors], dim=1)[targets[:, 0] != IGNORED]

    def _compute(self, state: Tensor) -> dict[str, float]:  # noqa: ARG002 - all is computed of rows
        return {}

    @torch.no_grad()
    def _compute_of_rows(self, rows: Tensor) -> dict[str, float]:
        columns = 1 + self.texts
        digits = rows[:, : 2 * columns].long().view(-1, columns, 2)
        numbers = digits[..., 0] * _DIGIT + digits[..., 1]
        order = numbers[:, 0].argsort()
        vectors = rows[:, 2 * columns :].reshape(len(rows), self.texts, -1)[order]
        hits, counts, loss = _search(self._task(numbers[order, 1:], vectors), self._temperature)
        asked = counts > 0
        return _figures(hits[asked].numpy(), counts[asked].numpy()) | {"loss": loss} if asked.any() else {}

    @abstractmethod
    def _task(self, targets: Tensor, vectors: Tensor) -> _Task:
        """Return what is looked for; targets are (samples, texts), vectors (samples, texts, width), in the order of samples."""


class PairRetrieval(Retrieval):
    """Each anchor looks among the positives of the split; equal texts are one."""

    texts = 2

    def _task(self, targets: Tensor, vectors: Tensor) -> _Task:
        return _of_pairs(targets, vectors)


def _of_pairs(targets: Tensor, vectors: Tensor) -> _Task:
    """Return what is looked for: what each row's first one is says where its second one belongs. Parameters as of `across`."""
    (queries, who), (corpus, what) = (_distinct(targets[:, side], vectors[:, side]) for side in (0, 1))
    pairs = torch.from_numpy(np.unique(torch.stack([who, what], dim=1).numpy(), axis=0))

    def belongs(start: int, end: int) -> Tensor:
        low, high = torch.searchsorted(pairs[:, 0].contiguous(), torch.tensor([start, end])).tolist()
        found = torch.zeros(end - start, len(corpus), dtype=torch.bool)
        found[pairs[low:high, 0] - start, pairs[low:high, 1]] = True
        return found

    return _Task(queries, corpus, belongs, apart=False)


def across(numbers: Tensor, vectors: Tensor, temperature: float) -> tuple[Tensor, float]:
    """Let the distinct first ones of rows look among the distinct second ones.

    Parameters
    ----------
    numbers, vectors
        Of each row's two, (rows, 2) and (rows, 2, width): equal numbers are one, whose vectors are as long as 1.
    temperature
        That the loss divides cosines by.

    Returns
    -------
    tuple
        Which of the best are hits, bool of shape (distinct first ones, up to 10), and the loss of `Retrieval`.
    """
    hits, _, loss = _search(_of_pairs(numbers, vectors), temperature)
    return hits, loss


class LabelRetrieval(Retrieval):
    """Each text looks among the others of the split for those of its label; one that has none is not asked."""

    texts = 1

    def undefined(self, targets: Targets) -> dict[str, str]:
        """Return the metrics that samples with such targets do not have, each with the reason."""
        if len(np.unique(targets.values)) == len(targets.values):
            return dict.fromkeys(self.names, "no two of its texts have the same label; hold out more")
        return super().undefined(targets)

    def _task(self, targets: Tensor, vectors: Tensor) -> _Task:
        labels = targets[:, 0]

        def belongs(start: int, end: int) -> Tensor:
            same = labels[start:end, None] == labels
            same[torch.arange(end - start), torch.arange(start, end)] = False
            return same

        return _Task(vectors[:, 0], vectors[:, 0], belongs, apart=True)


def _distinct(ids: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the vectors of distinct texts, in the order in which they first stand there, and which one each text is."""
    _, first, which = np.unique(ids.numpy(), return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.argsort(order)
    return vectors[torch.from_numpy(first[order])], torch.from_numpy(place[which])


def _search(task: _Task, temperature: float) -> tuple[Tensor, Tensor, float]:
    """Return which of the best are hits, bool of shape (queries, up to 10), how much belongs to each, and the mean loss."""
    hits, counts, total = [], [], 0.0
    for start in range(0, len(task.queries), step := max(1, _CHUNK // len(task.corpus))):
        part = task.queries[start : start + step]
        scores = part @ task.corpus.T
        if task.apart:
            rows = torch.arange(len(part))
            scores[rows, rows + start] = float("-inf")
        belongs = task.belongs(start, start + len(part))
        hits.append(belongs.gather(1, _best(scores, min(BEST, scores.shape[1] - task.apart))))
        counts.append(belongs.sum(dim=1))
        which, what = belongs.nonzero(as_tuple=True)
        others = (scores / temperature).masked_fill(belongs, float("-inf")).double().logsumexp(dim=1)
        total += float(functional.softplus(others[which] - scores[which, what].double() / temperature).sum())
    found = torch.cat(counts)
    return torch.cat(hits), found, total / max(1, int(found.sum()))


def _best(scores: Tensor, count: int) -> Tensor:
    """Return the places of the highest scores, int64 of shape (rows, count); of equal ones the first."""
    values, places = scores.topk(count, dim=1)
    tied = (scores >= values[:, -1:]).sum(dim=1) > count
    if tied.any():
        places[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :count]
    places = places.sort(dim=1).values
    order = scores.gather(1, places).sort(dim=1, descending=True, stable=True).indices
    return places.gather(1, order)


def _figures(hits: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Return the metrics of queries, by which of the best are hits, (queries, best), and how many texts belong to each."""
    gains = 1 / np.log2(np.arange(2, BEST + 2))
    ideal = np.cumsum(gains)[np.minimum(counts, BEST) - 1]
    first = np.where(hits.any(axis=1), 1 / (hits.argmax(axis=1) + 1), 0.0)
    return {
        "ndcgAt10": float(np.mean(hits @ gains[: hits.shape[1]] / ideal)),
        "mrrAt10": float(np.mean(first)),
        "recallAt1": float(np.mean(hits[:, 0] / counts)),
        "recallAt10": float(np.mean(hits.sum(axis=1) / counts)),
    }
