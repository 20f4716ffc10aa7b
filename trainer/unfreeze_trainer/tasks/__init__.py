"""Tasks, a file each under the name of the API's: an objective, a modality and a library put together."""

from __future__ import annotations

import importlib
from typing import cast

from pydantic.alias_generators import to_snake

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.libraries.base import ExportKind
from unfreeze_trainer.tasks.base import Batch, Task

__all__ = ["Batch", "ExportKind", "Task", "open_task"]


def open_task(job: ResolvedJob) -> Task:
    """Read and check the job's data and model folder, before anything is trained.

    Raises
    ------
    JobError
        InvalidData, InvalidModel or InvalidJob: field, file, row or column, and what to do.
    """
    module = importlib.import_module(f"{__name__}.{to_snake(job.task.type)}")
    return cast("Task", getattr(module, job.task.type)(job))
