"""Tasks: what is read, how it becomes batches, what the loss and the metrics are, how the result is written."""

from __future__ import annotations

from unfreeze_api.resolve import ResolvedJob
from unfreeze_trainer.tasks.base import Batch, ExportKind, Task

__all__ = ["Batch", "ExportKind", "Task", "open_task"]


def open_task(job: ResolvedJob) -> Task:
    """Read and check the job's data and model folder, before anything is trained.

    Raises
    ------
    JobError
        InvalidData, InvalidModel or InvalidJob: field, file, row or column, and what to do.
    """
    if job.task.type == "TextClassification":
        from unfreeze_trainer.tasks.text import TextClassification

        return TextClassification(job)
    from unfreeze_trainer.tasks.image import ImageClassification

    return ImageClassification(job)
