"""Audio classification: a folder of audio files or a table of their paths, a transformers model."""

from __future__ import annotations

from typing import Any

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.audio_classification import AudioClassificationSpec
from unfreeze_trainer.data.samples import Split
from unfreeze_trainer.libraries.transformers_audio import TransformersAudio
from unfreeze_trainer.modalities.audio import Audio
from unfreeze_trainer.objectives.labelled import labelled
from unfreeze_trainer.objectives.targets import Encoder
from unfreeze_trainer.tasks.composed import ComposedTask


class AudioClassification(ComposedTask):
    """Opens the data and the model folder of a job."""

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(AudioClassificationSpec)
        assert options is not None
        audio = TransformersAudio(job, options.max_seconds)
        self._clips = Audio(job, audio, options.max_seconds)
        super().__init__(job, labelled(job.task), self._clips, audio)

    def read(self) -> tuple[Encoder[Any], dict[str, Split]]:
        """Return what there is to predict, and the splits; the model is made as short as the training clips are, where that counts."""
        learned, splits = super().read()
        self.job = self._clips.shortened(self.job, splits["train"])  # what an export says of itself
        return learned, splits
