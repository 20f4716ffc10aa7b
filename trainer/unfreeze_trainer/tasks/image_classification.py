"""Image classification: a folder of images or a table of their paths, a model of timm or transformers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks import task_type
from unfreeze_api.tasks.image_classification import ImageClassificationSpec
from unfreeze_trainer.data.mixing import PARTNERS, SHARES
from unfreeze_trainer.libraries.timm import Timm
from unfreeze_trainer.libraries.transformers_image import TransformersImage
from unfreeze_trainer.modalities.image import Image
from unfreeze_trainer.models.folders import library_of
from unfreeze_trainer.objectives.base import TARGETS
from unfreeze_trainer.objectives.labelled import labelled
from unfreeze_trainer.tasks.base import Batch
from unfreeze_trainer.tasks.composed import ComposedTask

_OTHERS = "other_labels"
"""What a batch of mixed images calls the targets of the second ones."""


class ImageClassification(ComposedTask):
    """Opens the data and the model folder of a job."""

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(ImageClassificationSpec)
        assert options is not None
        kind = library_of(job.model.weights_path, job.model.source, task_type(job.task.type).libraries)
        library = (Timm if kind == "timm" else TransformersImage)(job, options.image_size)
        images = Image(job, library, options)
        super().__init__(job, labelled(job.task), images, library)
        images.chances = self.chances("train")

    def batches(
        self, split: str, batches: Iterable[Sequence[int]], *, epoch_seed: int | None = None
    ) -> Iterator[Batch]:
        """Yield the batch of each list of sample indices, on the CPU: images and targets, of mixed ones those of both."""
        targets, unread = self._splits[split].targets, self.unread[split]
        for batch in super().batches(split, batches, epoch_seed=epoch_seed):
            if PARTNERS in batch:
                partners = batch.pop(PARTNERS).tolist()
                batch[_OTHERS] = self.objective.collate(targets, partners, unread)[TARGETS]
            yield batch

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return each sample's loss, float32 of shape (samples,); of a mixed one the mean of both labels' by their shares.

        Cross-entropy is linear in its targets: this is the loss of soft labels.
        """
        own = super().loss(outputs, batch)
        if SHARES not in batch:
            return own
        others = super().loss(outputs, {**batch, TARGETS: batch[_OTHERS]})
        return torch.lerp(others, own, batch[SHARES])
