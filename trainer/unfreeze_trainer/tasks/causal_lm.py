"""Causal language modelling: a table of dialogues, of prompts with completions or of texts, a transformers decoder."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.causal_lm import CausalLMSpec
from unfreeze_trainer.libraries.causal_lm import CausalLanguageModel
from unfreeze_trainer.modalities.dialogues import Dialogues
from unfreeze_trainer.objectives.base import IGNORED, TARGETS
from unfreeze_trainer.objectives.next_token import NextToken
from unfreeze_trainer.tasks.composed import ComposedTask


class CausalLM(ComposedTask):
    """Opens the data and the model folder of a job."""

    wide_outputs = True

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(CausalLMSpec)
        assert options is not None
        library = CausalLanguageModel(job, answers=options.annotation == "Messages")
        self._dialogues = Dialogues(job, library, options, targets=TARGETS, ignored=IGNORED)
        super().__init__(job, NextToken, self._dialogues, library)

    def units(self, split: str) -> np.ndarray:
        """Return how many tokens of each sample are learned, int64 of shape (samples,)."""
        return self._dialogues.units(self._splits[split])

    def compared(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits after the last token of each sample, (samples, tokens of the vocabulary)."""
        last = batch["attention_mask"].sum(dim=1) - 1
        return self.forward(module, batch)[range(len(last)), last]
