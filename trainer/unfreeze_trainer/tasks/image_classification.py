"""Image classification: a folder of images or a table of their paths, a model of timm or transformers."""

from __future__ import annotations

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks import task_type
from unfreeze_api.tasks.image_classification import ImageClassificationSpec
from unfreeze_trainer.libraries.timm import Timm
from unfreeze_trainer.libraries.transformers_image import TransformersImage
from unfreeze_trainer.modalities.image import Image
from unfreeze_trainer.models.folders import library_of
from unfreeze_trainer.objectives.labelled import labelled
from unfreeze_trainer.tasks.composed import ComposedTask


class ImageClassification(ComposedTask):
    """Opens the data and the model folder of a job."""

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(ImageClassificationSpec)
        assert options is not None
        kind = library_of(job.model.path, task_type(job.task.type).libraries)
        library = (Timm if kind == "timm" else TransformersImage)(job, options.image_size)
        images = Image(job, library, augment=options.augmentation != "None")
        super().__init__(job, labelled(job.task), images, library)
