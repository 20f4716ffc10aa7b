"""Next token: of each token that is learned, the one before it is to give it the highest logit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unfreeze_trainer.objectives.base import IGNORED, LEARNED, PACKED, SAMPLES, TARGETS, Objective
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.objectives.targets import Encoder, Targets

_CHOSEN = 2
"""Dimensions of outputs of the places alone that a batch names."""


class NextToken(Objective):
    """Cross-entropy of the tokens that are learned. Outputs are (rows, length, tokens of the vocabulary), or (places, tokens of the
    vocabulary) of those places alone that the batch names.

    Targets stand where their tokens do, int64 of shape (rows, length), IGNORED where a token is not learned: as transformers has its
    labels. They come with the inputs. A row is a sample, or several of them, which the batch tells apart then.
    """

    blank_loss = 1.25
    """In nats. No head is new, so this is no guess of the start: it is what losses of a healthy decoder differ by. An answer that
    repeats a word of its question has 0.02, free text about 2, and the first step may have either. One that has collapsed is near
    the logarithm of its vocabulary, 10 to 12: four times this and more."""

    def __init__(self, learned: Encoder[Any]) -> None:
        super().__init__(learned)
        self.outputs = ()
        self.metrics = NextTokenMetrics()

    def collate(
        self,
        targets: Targets,  # noqa: ARG002 - they stand in the inputs
        indices: Sequence[int],  # noqa: ARG002
        unread: AbstractSet[int] = frozenset(),  # noqa: ARG002 - all have been read
    ) -> dict[str, Tensor]:
        """Return nothing: the targets come with the inputs."""
        return {}

    def counted(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return which rows of a batch have a token that is learned, bool of shape (rows,)."""
        return (batch[TARGETS] != IGNORED).any(dim=1)

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the cross-entropies of each sample's tokens in nats, float32 of shape (samples,); 0 without any."""
        losses, _ = _of_tokens(outputs, batch)
        if outputs.ndim == _CHOSEN:
            rows, columns = batch[LEARNED].to(outputs.device).unbind(1)
            owners = batch[PACKED].to(outputs.device)[rows, columns].clamp(min=0) if PACKED in batch else rows
            samples = batch[SAMPLES] if PACKED in batch else batch[TARGETS]
            return losses.new_zeros(len(samples)).index_add(0, owners, losses)
        if PACKED not in batch:
            return losses.sum(dim=1)
        owners = batch[PACKED].to(outputs.device).clamp(min=0)  # padding has a loss of 0
        return losses.new_zeros(len(batch[SAMPLES])).index_add(0, owners.flatten(), losses.roll(1, dims=1).flatten())

    def answer(self, outputs: str) -> str:
        """Return a Python expression for the most probable next token."""
        return f"{outputs}.argmax(-1)"


class NextTokenMetrics(Metrics):
    """loss, perplexity and tokenAccuracy of one split.

    The state is float64 of shape (3,): the sum of the losses, the tokens that have the highest logit, and all that are learned.
    """

    names = ("loss", "perplexity", "tokenAccuracy")

    def new_state(self) -> Tensor:
        """Return the state of no samples, on the CPU; states are added."""
        return torch.zeros(3, dtype=torch.float64)

    @staticmethod
    def _of_tokens(outputs: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the loss at each place, and the token that its logits are of; both (rows, length)."""
        return _of_tokens(outputs, batch)

    @torch.no_grad()
    def update(self, state: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch in place. `outputs` are logits, (samples, length, tokens of the vocabulary) on any device."""
        losses, targets = self._of_tokens(outputs, batch)
        learned = targets != IGNORED
        hits = learned & (outputs.argmax(dim=-1) == targets)
        state += torch.stack([part.double().sum() for part in (losses, hits, learned)]).to(state.device)

    def _compute(self, state: Tensor) -> dict[str, float]:
        """Return the mean cross-entropy of the tokens in nats, its exponential, and the share of tokens that are right."""
        losses, hits, count = state.tolist()
        if not count:
            return {}
        loss = losses / count
        most = math.log(torch.finfo(torch.float64).max)
        return {"loss": loss, "perplexity": math.exp(min(loss, most)), "tokenAccuracy": hits / count}


def _of_tokens(outputs: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the loss at each token, 0 where its next one is not learned, and these next ones; both (rows, length), or (places,).

    Shapes follow from those of the batch alone, so that training can be traced.
    """
    targets = batch[TARGETS].to(outputs.device).roll(-1, dims=1)
    targets[:, -1] = IGNORED
    if outputs.ndim == _CHOSEN:
        rows, columns = batch[LEARNED].to(outputs.device).unbind(1)
        targets = targets[rows, columns]
    return token_losses(outputs, targets), targets


def token_losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy at each place in nats, float32 of the shape of the targets; 0 where one is ignored.

    Parameters
    ----------
    outputs
        Logits, (rows, length, tokens of the vocabulary), or (places, tokens of the vocabulary).
    targets
        Ids of tokens, int64 of shape (rows, length), or (places,), on the same device.
    """
    losses = functional.cross_entropy(
        outputs.float().flatten(0, -2), targets.flatten(), reduction="none", ignore_index=IGNORED
    )
    return losses.view_as(targets)
