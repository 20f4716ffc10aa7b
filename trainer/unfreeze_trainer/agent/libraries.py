"""Which libraries the processes of a job import, whatever they do with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unfreeze_api.tasks import task_type
from unfreeze_api.tasks.base import AUDIO, IMAGE, TEXT
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.folders import library_of

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_api.tasks.base import TaskType

_ALWAYS = ("torch", "torch.distributed.elastic.agent.server.local_elastic_agent")
_TRANSFORMERS = ("transformers.modeling_utils", "transformers.models.auto.modeling_auto", "transformers.pipelines")


def is_certain(job: ResolvedJob) -> bool:
    """Return whether it is known before the model is here which library reads it."""
    return len(task_type(job.task.type).libraries) == 1


def libraries_of(job: ResolvedJob) -> list[str]:
    """Return the modules that worker and verification of a job import; none that starts a thread or opens an accelerator."""
    task, found = task_type(job.task.type), [*_ALWAYS]
    libraries = dict.fromkeys(_library(path, source, task) for _, source, path in job.model.bases)
    for library in libraries:
        found.extend(_TRANSFORMERS if library == "transformers" else ("timm",))
    if task.reads_text or task.joins or (AUDIO in task.reads and TEXT in task.reads):
        found.append("transformers.models.auto.tokenization_auto")
    if IMAGE in task.reads and "transformers" in libraries:
        found.append("transformers.models.auto.image_processing_auto")
    if AUDIO in task.reads and (not task.towers or "Audio" in (job.model.modalities or ())):
        found.append("transformers.models.auto.feature_extraction_auto")
    if job.adapter and not job.distribution.accelerators_per_node:  # it looks for them, by bitsandbytes
        found.append("peft")
    return found


def _library(path: str, source: str, task: TaskType) -> str:
    """Return whose model a folder holds."""
    try:
        return library_of(path, source, task.libraries)
    except JobError:  # not here yet, or no model at all, which others say
        return task.library
