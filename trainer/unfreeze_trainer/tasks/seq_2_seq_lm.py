"""Sequence-to-sequence language modelling: a table of sources and targets, a transformers encoder-decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.seq_2_seq_lm import Seq2SeqLMSpec
from unfreeze_trainer.libraries.seq_2_seq_lm import Seq2SeqLanguageModel
from unfreeze_trainer.modalities.sequences import Names, Sequences
from unfreeze_trainer.objectives.base import IGNORED, TARGETS
from unfreeze_trainer.objectives.teacher_forcing import TeacherForcing
from unfreeze_trainer.tasks.base import Batch
from unfreeze_trainer.tasks.composed import VERIFIED_SAMPLES, ComposedTask


class Seq2SeqLM(ComposedTask):
    """Opens the data and the model folder of a job."""

    wide_outputs = True

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(Seq2SeqLMSpec)
        assert options is not None
        library = Seq2SeqLanguageModel(job)
        self._sequences = Sequences(job, library, options, Names(targets=TARGETS, ignored=IGNORED))
        super().__init__(job, TeacherForcing, self._sequences, library)

    def units(self, split: str) -> np.ndarray:
        """Return how many tokens of each sample are learned, int64 of shape (samples,)."""
        return self._sequences.units(self._splits[split])

    def answers_at(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the token that each place of the outputs is to give: targets stand where the logits do."""
        return inputs[TARGETS]

    def first_samples(self) -> tuple[Batch, Any]:
        """Return the beginnings of the first validation samples, source and what the decoder reads by number, and as lists of ids."""
        split = self._splits["validation"]
        samples = self._sequences.samples(split, min(VERIFIED_SAMPLES, len(split)), {})
        batch = {
            f"{part} {number}": torch.tensor([ids])
            for number, sample in enumerate(samples)
            for part, ids in zip(("source", "target"), sample, strict=True)
        }
        return batch, samples

    def compared(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits after the last token of each sample of `first_samples`, (samples, tokens of the vocabulary)."""
        found = [
            self.library.forward(
                module, {"input_ids": batch[f"source {number}"], "decoder_input_ids": batch[f"target {number}"]}
            )
            for number in range(len(batch) // 2)
        ]
        return torch.stack([logits[0, -1].clone() for logits in found])
