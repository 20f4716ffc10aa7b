"""Audio classification: a folder of audio files or a table of their paths, a transformers model."""

from __future__ import annotations

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.audio_classification import AudioClassificationSpec
from unfreeze_trainer.libraries.transformers_audio import TransformersAudio
from unfreeze_trainer.modalities.audio import Audio
from unfreeze_trainer.objectives.labelled import labelled
from unfreeze_trainer.tasks.composed import ComposedTask


class AudioClassification(ComposedTask):
    """Opens the data and the model folder of a job."""

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(AudioClassificationSpec)
        assert options is not None
        library = TransformersAudio(job, options.max_seconds)
        super().__init__(job, labelled(job.task), Audio(job, library, options.max_seconds), library)
