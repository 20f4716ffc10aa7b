"""Tagging: each word of a sample is of one class, and words that belong together are spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from math import log, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unfreeze_api.contracts.report import Usefulness
from unfreeze_trainer.objectives.answers import ABSENT, ANSWERED, UNSEEN, OneOf
from unfreeze_trainer.objectives.base import IGNORED, TARGETS, Objective
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.objectives.targets import Encoder, Targets
from unfreeze_trainer.objectives.targets.tags import OUTSIDE, parts_and_kinds
from unfreeze_trainer.usefulness import judge

PLACES = "words"
"""What a batch calls the places of words in the model's output, int64 of shape (samples, words): -1 of one that has none."""
_NO_ANSWER = -1
_Z = 1.959964
"""Standard deviations of a normal distribution within which 95 % of it lie."""


class Tagging(Objective):
    """Cross-entropy of logits of each word, one for each tag. Outputs are (samples, words, tags)."""

    problem_type = "single_label_classification"
    pipelined = True
    has_words = True

    def __init__(self, learned: Encoder[Any]) -> None:
        super().__init__(learned)
        self.outputs = self.labels
        self.metrics = TagMetrics(self.labels)
        self.blank_loss = log(len(self.labels))
        self.answers = OneOf(self.labels, unseen=OUTSIDE if OUTSIDE in self.labels else None)

    def collate(
        self, targets: Targets, indices: Sequence[int], unread: AbstractSet[int] = frozenset()
    ) -> dict[str, Tensor]:
        """Return the tags of a batch, int64 of shape (samples, words), filled up to the most words. Parameters as of Objective."""
        rows = [targets.values[index] for index in indices]
        values = np.full((max(1, len(rows)), max(map(len, rows), default=1)), IGNORED, dtype=np.int64)
        for place, (index, row) in enumerate(zip(indices, rows, strict=True)):
            if index not in unread:
                values[place, : len(row)] = row
        return {TARGETS: torch.from_numpy(values)}

    def counted(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return which rows of a batch are samples and no padding, bool of shape (samples,)."""
        return (batch[TARGETS] != IGNORED).any(dim=1)

    def rows_of(self, targets: Targets) -> np.ndarray:
        """Return how many words each sample has, int64 of shape (samples,)."""
        return targets.units

    @torch.no_grad()
    def keep(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits of each word, (samples, words, tags), and states; words that the model does not see are unseen."""
        states = torch.where(batch[PLACES] < 0, UNSEEN, ANSWERED).masked_fill(batch[TARGETS] == IGNORED, ABSENT)
        return outputs.float(), states.to(torch.uint8)

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the cross-entropies of each sample's words in nats, float32 of shape (samples,).

        Words that the model does not see have none.
        """
        targets = batch[TARGETS].masked_fill(batch[PLACES] < 0, IGNORED)
        losses = functional.cross_entropy(
            outputs.float().flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED
        )
        return losses.view_as(targets).sum(dim=1)

    def answer(self, outputs: str) -> str:
        """Return a Python expression for the tags of one sample's tokens."""
        return f"[labels[i] for i in {outputs}[0].argmax(-1)]"


class TagMetrics(Metrics):
    """Precision, recall and F1 of spans, accuracy of words, loss of one split.

    The state is float64 of shape (11 + 5 * tags,): spans that are right, predicted and actual; sum of losses and number of
    words that have one; number of samples; hits h and words w of all samples and the sums of their products h h, h w, w w;
    hits of each tag, words a of each tag, and the sums of h a, w a and a a.

    Parameters
    ----------
    labels
        The tags, in the order of class ids.

    Notes
    -----
    Spans are those of conlleval, as seqeval's default mode has them: a span begins at B and S, where the kind changes, and
    after O, E and S. So sequences that break the scheme count too. A word that the model does not see counts as O, and as
    wrong where there is no O.
    """

    names = ("spanF1", "spanPrecision", "spanRecall", "tokenAccuracy", "loss")

    def __init__(self, labels: Sequence[str]) -> None:
        self.classes = len(labels)
        parts, kinds = parts_and_kinds(labels)
        numbers = {kind: number for number, kind in enumerate(dict.fromkeys(filter(None, kinds)))}
        # The last entries are those of no answer, whose id is -1.
        self._kinds = torch.tensor([*(numbers.get(kind, -1) for kind in kinds), -1])
        self._begins = torch.tensor([*(part in "BS" for part in parts), False])
        self._ends = torch.tensor([*(part in "ES" for part in parts), False])
        self._unseen = labels.index(OUTSIDE) if OUTSIDE in labels else _NO_ANSWER

    def new_state(self) -> Tensor:
        """Return the state of no samples, on the CPU; states are added."""
        return torch.zeros(11 + 5 * self.classes, dtype=torch.float64)

    @torch.no_grad()
    def update(self, state: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch in place. `outputs` are logits, (samples, words, tags) on any device, as Tagging's loss takes them."""
        device = outputs.device
        targets, places = batch[TARGETS].to(device), batch[PLACES].to(device)
        words = targets != IGNORED
        answers = outputs.argmax(dim=-1).masked_fill(places < 0, self._unseen)
        seen = words & (places >= 0)
        loss = functional.cross_entropy(outputs[seen].float(), targets[seen], reduction="none").double().sum()
        spans = self._count_spans(targets[words], answers[words], _firsts(words))
        state += torch.cat(
            [spans, torch.stack([loss, seen.sum().double()]), self._count_words(targets, answers, words)]
        ).to(state.device)

    def _count_spans(self, actual: Tensor, predicted: Tensor, first: Tensor) -> Tensor:
        """Return how many spans are right, predicted and actual; `first` says which words are the first of a sample."""
        begins, ends, kinds = self._spans(actual, first)
        others, other_ends, other_kinds = self._spans(predicted, first)
        right = begins & others & (ends == other_ends) & (kinds == other_kinds)
        return torch.stack([right.sum(), others.sum(), begins.sum()]).double()

    def _spans(self, tags: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return for each word whether a span begins there, where the next one does not go on, and the span's kind."""
        kinds, begin, end = (table.to(tags.device)[tags] for table in (self._kinds, self._begins, self._ends))
        goes_on = (kinds == kinds.roll(1)) & ~begin & ~end.roll(1) & ~first
        inside = kinds >= 0
        borders = torch.where(inside & goes_on, len(tags), torch.arange(len(tags), device=tags.device))
        nearest = borders.flip(0).cummin(0).values.flip(0) if len(tags) else borders
        return inside & ~goes_on, torch.cat([nearest[1:], nearest.new_tensor([len(tags)])])[: len(tags)], kinds

    def _count_words(self, targets: Tensor, answers: Tensor, words: Tensor) -> Tensor:
        """Return the part of the state that is about words."""
        rows, right = torch.arange(len(targets), device=targets.device)[:, None], words & (targets == answers)
        size = len(targets) * self.classes
        of_each = torch.bincount((rows * self.classes + targets)[words], minlength=size).view(-1, self.classes).double()
        hits_of_each = torch.bincount(targets[right], minlength=self.classes).double()
        hits, count = right.sum(dim=1).double(), words.sum(dim=1).double()
        both = torch.stack([hits, count])
        sums = torch.stack(
            [(count > 0).sum().double(), hits.sum(), count.sum(), hits @ hits, hits @ count, count @ count]
        )
        return torch.cat(
            [sums, hits_of_each, of_each.sum(dim=0), (both @ of_each).flatten(), of_each.square().sum(dim=0)]
        )

    def usefulness(self, state: Tensor, labels: Sequence[str], metric: str) -> Usefulness | None:
        """Return whether a model with this summed state gives more words their tag than always guessing one tag does.

        The words of a sample are not drawn one by one: the interval is no narrower than that of a ratio over samples, by its
        linearisation (Cochran 1977, Sampling Techniques, chapter 6).
        """
        samples, hits, count, hits_hits, hits_count, count_count = state[5:11].tolist()
        if not count:
            return None
        of_tag, actual, hits_tag, count_tag, tag_tag = state[11:].view(5, self.classes).cpu().numpy()
        guess = int(actual.argmax())
        gain = (hits - actual[guess]) / count
        square = hits_hits - 2 * hits_tag[guess] + tag_tag[guess]
        square += gain * gain * count_count - 2 * gain * (hits_count - count_tag[guess])
        reach = 1.0 if samples == 1 else _Z * sqrt(max(0.0, square) * samples / (samples - 1)) / count
        return judge(of_tag, actual, labels, metric, noun="words", reach=reach)

    def _compute(self, state: Tensor) -> dict[str, float]:
        """Return the metrics as seqeval defines them: of all spans together; loss is the mean cross-entropy in nats."""
        right, predicted, actual, loss, seen = state[:5].tolist()
        hits, words = state[6:8].tolist()
        if not words:
            return {}
        precision, recall = right / max(predicted, 1), right / max(actual, 1)
        return {
            "spanF1": 2 * precision * recall / (precision + recall) if right else 0.0,
            "spanPrecision": precision,
            "spanRecall": recall,
            "tokenAccuracy": hits / words,
            "loss": loss / max(seen, 1),
        }


def _firsts(words: Tensor) -> Tensor:
    """Return which of all words are the first of their sample: samples begin in the first column."""
    first = torch.zeros_like(words)
    first[:, 0] = True
    return first[words]
