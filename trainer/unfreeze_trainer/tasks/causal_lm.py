"""Causal language modelling: a table of dialogues, of prompts with completions or of texts, a transformers decoder."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.causal_lm import CausalLMSpec
from unfreeze_trainer.libraries.causal_lm import CausalLanguageModel
from unfreeze_trainer.modalities.dialogues import Dialogues, Names
from unfreeze_trainer.objectives.base import IGNORED, PACKED, SAMPLES, TARGETS
from unfreeze_trainer.objectives.next_token import NextToken
from unfreeze_trainer.tasks.composed import ComposedTask


class CausalLM(ComposedTask):
    """Opens the data and the model folder of a job."""

    wide_outputs = True

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(CausalLMSpec)
        assert options is not None
        library = CausalLanguageModel(job, answers=options.annotation == "Messages", packs=options.packing)
        names = Names(targets=TARGETS, ignored=IGNORED, packed=PACKED, samples=SAMPLES)
        self._dialogues = Dialogues(job, library, options, names)
        self.pads = not options.packing
        super().__init__(job, NextToken, self._dialogues, library)

    def units(self, split: str) -> np.ndarray:
        """Return how many tokens of each sample are learned, int64 of shape (samples,)."""
        return self._dialogues.units(self._splits[split])

    def repeats(self, split: str) -> bool:
        """Return whether frozen blocks need a split's samples once; those of packed ones depend on what shares their row."""
        return super().repeats(split) and self.pads

    def forward(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of each token's next one, (rows, length, tokens of the vocabulary)."""
        inputs = {name: tensor for name, tensor in batch.items() if name not in (TARGETS, SAMPLES, PACKED)}
        return self.library.forward(module, inputs)

    def compared(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits after the last token of each sample, (samples, tokens of the vocabulary)."""
        outputs = self.forward(module, batch).flatten(0, 1)
        if PACKED in batch:
            owners = batch[PACKED].flatten()
        else:
            numbers = torch.arange(len(batch["input_ids"]))[:, None]
            owners = torch.where(batch["attention_mask"].bool(), numbers, -1).flatten()
        count = int(owners.max()) + 1
        return outputs[[int(torch.nonzero(owners == number)[-1]) for number in range(count)]]
