"""Speech recognition: a table of audio files and texts, a Whisper of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.speech_recognition import SpeechRecognitionSpec
from unfreeze_trainer.data.samples import Split
from unfreeze_trainer.libraries.transformers_speech import TransformersSpeech
from unfreeze_trainer.modalities.speech import FEATURES, READ, Speech
from unfreeze_trainer.objectives.base import IGNORED, TARGETS
from unfreeze_trainer.objectives.targets import Encoder
from unfreeze_trainer.objectives.teacher_forcing import TeacherForcing
from unfreeze_trainer.objectives.word_errors import WordErrors
from unfreeze_trainer.tasks.base import Batch
from unfreeze_trainer.tasks.composed import VERIFIED_SAMPLES, ComposedTask


class SpeechRecognition(ComposedTask):
    """Opens the data and the model folder of a job."""

    wide_outputs = reads_targets = True
    scores = WordErrors

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(SpeechRecognitionSpec)
        assert options is not None
        library = TransformersSpeech(job, options.max_seconds, options.language)
        self._speech = Speech(job, library, options.max_seconds, targets=TARGETS, ignored=IGNORED)
        super().__init__(job, TeacherForcing, self._speech, library)

    def read(self) -> tuple[Encoder[Any], dict[str, Split]]:
        """Return what there is to predict, and the splits; the model is made as short as the training clips are."""
        learned, splits = super().read()
        self.job = self._speech.shortened(self.job, splits["train"])
        return learned, splits

    def units(self, split: str) -> np.ndarray:
        """Return how many tokens of each sample are learned, int64 of shape (samples,)."""
        return self._speech.units(self._splits[split])

    def answers_at(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the token that each place of the outputs is to give: targets stand where the logits do."""
        return inputs[TARGETS]

    def first_samples(self) -> tuple[Batch, Any]:
        """Return the first validation samples, what is heard and what the decoder reads by number, and as clips with lists of ids."""
        split = self._splits["validation"]
        count = min(VERIFIED_SAMPLES, len(split))
        [found] = self.batches("validation", [range(count)])
        samples = self._speech.samples(split, count, found)
        batch = {f"{FEATURES} {number}": found[FEATURES][number : number + 1] for number in range(count)}
        return batch | {f"{READ} {number}": torch.tensor([ids]) for number, (_, ids) in enumerate(samples)}, samples

    def compared(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits after the last token of each sample of `first_samples`, (samples, tokens of the vocabulary)."""
        found = [
            self.library.forward(module, {name: batch[f"{name} {number}"] for name in (FEATURES, READ)})
            for number in range(len(batch) // 2)
        ]
        return torch.stack([logits[0, -1].clone() for logits in found])
