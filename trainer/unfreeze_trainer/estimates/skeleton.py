"""A job as it is traced: its model without weights, in what a CPU computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob


def plain(job: ResolvedJob) -> ResolvedJob:
    """Return a job as it is traced: uncompiled, and an accelerator's Float16, which no CPU takes, in BFloat16, which is as large."""
    update: dict[str, Any] = {"compile": False}
    if job.training.precision == "Float16" and job.distribution.accelerators_per_node:
        update["precision"] = "BFloat16"
    return job.model_copy(update={"training": job.training.model_copy(update=update)})


@contextmanager
def skeletons(task: Any, job: ResolvedJob) -> Iterator[None]:
    """Have a task build a job's model without its weights, and a quantised one as it was before."""
    library = task.library
    if job.model.towers:
        with ExitStack() as stack:
            for each in (library, *library.bases):
                stack.enter_context(patch.object(each, "_random", True))
                # A way that is tried may have an adapter that the task was opened without.
                tried = each.job.model_copy(update={"adapter": job.adapter})
                stack.enter_context(patch.object(each, "job", tried))
            yield
        return
    before = library._random, library.job  # noqa: SLF001 - its own way to build without weights
    model = job.model.model_copy(update={"quantization": None})
    library._random, library.job = True, job.model_copy(update={"model": model})  # noqa: SLF001
    try:
        yield
    finally:
        library._random, library.job = before  # noqa: SLF001
