"""Token classification: a table of words and tags, or of texts and spans, a transformers model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.token_classification import TokenClassificationSpec
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.libraries.token_classifier import TokenClassifier
from unfreeze_trainer.modalities.words import Words
from unfreeze_trainer.objectives.base import TARGETS
from unfreeze_trainer.objectives.tagging import PLACES, Tagging
from unfreeze_trainer.tasks.composed import ComposedTask


class TokenClassification(ComposedTask):
    """Opens the data and the model folder of a job."""

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(TokenClassificationSpec)
        assert options is not None
        library = TokenClassifier(job)
        self._words = Words(job, library, options.max_length, spans=options.annotation == "Spans", places=PLACES)
        super().__init__(job, Tagging, self._words, library)

    def units(self, split: str) -> np.ndarray:
        """Return how many words of each sample the model sees, int64 of shape (samples,).

        Raises
        ------
        JobError
            InvalidData: none of those to train on.
        """
        seen = self._words.seen(self._splits[split])
        if split == "train" and not seen.any():
            raise JobError(
                "InvalidData",
                f"{self._splits[split].source.where}: the model sees none of the words: with maxLength {self._words.max_length} there"
                " is no room for them, or they are nothing to its tokenizer. Raise spec.task.tokenClassification.maxLength, or look"
                " at the words",
            )
        return seen

    @cached_property
    def unseen_words(self) -> dict[str, int]:
        """Words of each split that the model does not see."""
        counts = {
            name: int((self._words.words(split) - self._words.seen(split)).sum())
            for name, split in self._splits.items()
        }
        return {name: count for name, count in counts.items() if count}

    def forward(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs at the first token of each word, (samples, words, outputs); anything where a word has none."""
        outputs = self._of_tokens(module, batch)
        places = batch[PLACES].clamp(min=0)[..., None].expand(-1, -1, outputs.shape[2])
        return outputs.gather(1, places)

    def compared(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs of all tokens of a batch that are no padding, (tokens, outputs)."""
        return self._of_tokens(module, batch)[batch["attention_mask"].bool()]

    def _of_tokens(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs of the batch's tokens, (samples, tokens, outputs), without those of a prompt before them."""
        inputs = {name: tensor for name, tensor in batch.items() if name not in (TARGETS, PLACES)}
        return self.library.forward(module, inputs)[:, -inputs["input_ids"].shape[1] :]
