"""Causal language modelling: a table of dialogues, of prompts with completions or of texts, a transformers decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.causal_lm import CausalLMSpec
from unfreeze_trainer.libraries.causal_lm import CausalLanguageModel
from unfreeze_trainer.modalities.dialogues import Dialogues, Names
from unfreeze_trainer.objectives.base import IGNORED, LEARNED, PACKED, SAMPLES, TARGETS
from unfreeze_trainer.objectives.next_token import NextToken
from unfreeze_trainer.tasks.base import Batch
from unfreeze_trainer.tasks.composed import VERIFIED_SAMPLES, ComposedTask


class CausalLM(ComposedTask):
    """Opens the data and the model folder of a job."""

    wide_outputs = True
    library: CausalLanguageModel

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(CausalLMSpec)
        assert options is not None
        library = CausalLanguageModel(job, answers=options.annotation == "Messages", packs=options.packing)
        names = Names(targets=TARGETS, ignored=IGNORED, packed=PACKED, samples=SAMPLES, learned=LEARNED)
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
        """Return the logits of the next token at each place that is learned, (places, tokens of the vocabulary), or at all where a batch names none."""
        places = batch.get(LEARNED)
        if places is None:
            return self.outputs(module, batch)
        return self.library.forward_at(module, _inputs(batch), places)

    def outputs(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of each token's next one, (rows, length, tokens of the vocabulary)."""
        return self.library.forward(module, _inputs(inputs))

    def first_samples(self) -> tuple[Batch, Any]:
        """Return the beginnings of the first validation samples, each a batch of its own by its number, and as lists of ids."""
        split = self._splits["validation"]
        samples = self._dialogues.samples(split, min(VERIFIED_SAMPLES, len(split)), {})
        return {str(number): torch.tensor([ids]) for number, ids in enumerate(samples)}, samples

    def compared(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits after the last token of each sample of `first_samples`, (samples, tokens of the vocabulary)."""
        return torch.stack([self.library.forward(module, {"input_ids": ids})[0, -1].clone() for ids in batch.values()])


def _inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what of a batch the model reads."""
    return {name: tensor for name, tensor in batch.items() if name not in (TARGETS, SAMPLES, PACKED, LEARNED)}
