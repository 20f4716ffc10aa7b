"""Connectionist temporal classification: at each moment a character or none, and all ways to write a text count (Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional

from unfreeze_trainer.objectives.base import IGNORED, TARGETS, Objective, exact
from unfreeze_trainer.objectives.metrics import Metrics
from unfreeze_trainer.objectives.targets import Encoder, Targets
from unfreeze_trainer.objectives.word_errors import SUMS, WordErrors

Lengths = Callable[[Mapping[str, Tensor]], Tensor]
"""Returns how many moments each sample of a batch has, int64 of shape (samples,)."""


class Speller(Protocol):
    """Turns ids into texts."""

    blank: int
    """Id of saying nothing."""

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""

    def heard(self, ids: Sequence[int]) -> str:
        """Return the text of the ids of all moments: repeated ones count once, blanks not at all."""


class Ctc(Objective):
    """Negative log-likelihood of texts. Outputs are (samples, moments, characters of the vocabulary).

    Targets are ids of characters, int64 of shape (samples, length), IGNORED beyond a text's end. They come with the inputs. A unit of the
    loss is a character.

    Parameters
    ----------
    learned
        What the training data says.
    moments
        Of a batch's samples; the outputs beyond are padding.
    speller
        Of the vocabulary.
    """

    def __init__(self, learned: Encoder[Any], *, moments: Lengths, speller: Speller) -> None:
        super().__init__(learned)
        self.outputs = ()
        self._moments, self._blank = moments, speller.blank
        self.metrics = CtcMetrics(self.loss, moments, speller)

    def collate(
        self,
        targets: Targets,  # noqa: ARG002 - they stand in the inputs
        indices: Sequence[int],  # noqa: ARG002
        unread: AbstractSet[int] = frozenset(),  # noqa: ARG002 - they have no targets there
    ) -> dict[str, Tensor]:
        """Return nothing: the targets come with the inputs."""
        return {}

    def counted(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return which rows of a batch have a text, bool of shape (samples,)."""
        return (batch[TARGETS] != IGNORED).any(dim=1)

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the negative log-likelihood of each sample's text in nats, float32 of shape (samples,); 0 without one."""
        targets = batch[TARGETS].to(outputs.device)
        lengths = (targets != IGNORED).sum(dim=1)
        logs = exact(outputs).log_softmax(dim=-1).transpose(0, 1)
        if isinstance(outputs, FakeTensor):
            return _pretended(logs, targets)
        moments = self._moments(batch).to(outputs.device)
        with torch.backends.cudnn.flags(enabled=False):  # cuDNN's takes blank 0 alone
            losses = functional.ctc_loss(
                logs, targets.clamp(min=0), moments, lengths, blank=self._blank, reduction="none"
            )
        return losses.masked_fill(lengths == 0, 0.0)

    def answer(self, outputs: str) -> str:
        """Return a Python expression for the most probable character at each moment."""
        return f"{outputs}.argmax(-1)"


def _pretended(logs: Tensor, targets: Tensor) -> Tensor:
    """Return losses without numbers, beside what the loss keeps for its gradients: torch has no shapes of it that do not depend on lengths."""
    kept = logs.new_zeros(len(targets), len(logs), 2 * targets.shape[1] + 1)
    return -logs.sum(dim=(0, 2)) + kept.sum(dim=(1, 2))


class CtcMetrics(Metrics):
    """loss, wer, cer and exactMatch of one split, of the most probable character at each moment.

    The state is float64 of shape (2 + SUMS,): the sum of the losses, characters that are learned, and the sums of WordErrors.

    Parameters
    ----------
    loss
        Of each sample of a batch.
    moments, speller
        As of Ctc.
    """

    names = ("loss", "wer", "cer", "exactMatch")

    def __init__(
        self, loss: Callable[[Tensor, Mapping[str, Tensor]], Tensor], moments: Lengths, speller: Speller
    ) -> None:
        self._loss, self._moments, self._speller = loss, moments, speller

    def new_state(self) -> Tensor:
        """Return the state of no samples, on the CPU; states are added."""
        return torch.zeros(2 + SUMS, dtype=torch.float64)

    @torch.no_grad()
    def update(self, state: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch in place. `outputs` are logits, (samples, moments, characters of the vocabulary) on any device."""
        errors = WordErrors()
        targets = batch[TARGETS].cpu()
        for said, right in zip(self.texts(outputs, batch), targets, strict=True):
            if len(own := right[right != IGNORED]):
                errors.add(said, self._speller.text(own.tolist()))
        state[0] += self._loss(outputs, batch).double().sum().to(state.device)
        state[1] += float((targets != IGNORED).sum())
        state[2:] += torch.from_numpy(errors.sums).to(state)

    def texts(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> list[str]:
        """Return what a model writes of each sample of a batch."""
        best, moments = outputs.argmax(dim=-1).cpu().tolist(), self._moments(batch).tolist()
        return [self._speller.heard(ids[:length]) for ids, length in zip(best, moments, strict=True)]

    def _compute(self, state: Tensor) -> dict[str, float]:
        """Return the mean negative log-likelihood of a character in nats, and the error rates."""
        loss, count, *sums = state.tolist()
        if not count:
            return {}
        return {"loss": loss / count, **WordErrors([round(value) for value in sums]).compute()}
