"""Text classification: a table of texts and labels, a transformers model."""

from __future__ import annotations

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.text_classification import TextClassificationSpec
from unfreeze_trainer.libraries.transformers import Transformers
from unfreeze_trainer.modalities.text import Text
from unfreeze_trainer.objectives.labelled import labelled
from unfreeze_trainer.tasks.composed import ComposedTask


class TextClassification(ComposedTask):
    """Opens the data and the model folder of a job."""

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(TextClassificationSpec)
        assert options is not None
        library = Transformers(job, options.pooling)
        super().__init__(job, labelled(job.task), Text(job, library, options.max_length), library)
