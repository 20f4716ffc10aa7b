"""Teacher forcing: of each token of a target, the right ones before it are to give it the highest logit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unfreeze_trainer.objectives.base import TARGETS
from unfreeze_trainer.objectives.next_token import NextToken, NextTokenMetrics, token_losses
from unfreeze_trainer.objectives.targets import Encoder


class TeacherForcing(NextToken):
    """Cross-entropy of the tokens of targets. Outputs are (samples, length, tokens of the vocabulary).

    Targets stand where the logits do that are to give them, int64 of shape (samples, length), IGNORED beyond a target's end: what the
    decoder reads is one place behind. They come with the inputs.
    """

    def __init__(self, learned: Encoder[Any]) -> None:
        super().__init__(learned)
        self.metrics = TeacherForcingMetrics()

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the cross-entropies of each sample's tokens in nats, float32 of shape (samples,); 0 without any."""
        losses, _ = _of_targets(outputs, batch)
        return losses.sum(dim=1)


class TeacherForcingMetrics(NextTokenMetrics):
    """loss, perplexity and tokenAccuracy of one split; the state is that of NextTokenMetrics."""

    @staticmethod
    def _of_tokens(outputs: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return _of_targets(outputs, batch)


def _of_targets(outputs: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the loss at each place of the targets, 0 beyond their end, and the targets; both (samples, length)."""
    targets = batch[TARGETS].to(outputs.device)
    return token_losses(outputs, targets), targets
