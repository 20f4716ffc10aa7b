"""The candidates of a job, each as a job of its own; without torch, for whoever looks at them only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from unfreeze_api.tasks import task_type
from unfreeze_trainer.errors import JobError

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob


def candidates_of(job: ResolvedJob) -> list[ResolvedJob]:
    """Return the job with each candidate as its base.

    It has no adapter, since it is the base's own features that count, and no metric, which may be undefined on some rows.
    """
    update = {"adapter": None, "training": job.training.model_copy(update={"metric": None})}
    return [job.with_base(source).model_copy(update=update) for source in job.model.candidates or []]


@contextmanager
def naming(job: ResolvedJob, candidate: ResolvedJob) -> Iterator[None]:
    """Have errors about a base say which of the candidates it is."""
    source = candidate.model.source
    number = (job.model.candidates or []).index(source)
    try:
        yield
    except JobError as error:
        said = error.marked.replace(f"spec.model.source {source}", f"spec.model.candidates[{number}].source {source}")
        raise JobError(error.reason, said) from error


def require_rankable(job: ResolvedJob) -> None:
    """Raise JobError InvalidJob if a job has no candidates, or its task cannot be ranked."""
    if not job.model.candidates:
        raise JobError(
            "InvalidJob",
            "spec.model.candidates is not set: list the bases to choose from there, in place of spec.model.source",
        )
    if not task_type(job.task.type).rankable:  # the rules of the API say so too
        raise JobError("InvalidJob", f"spec.model.candidates: bases of {job.task.type} cannot be ranked")


def require_chosen(job: ResolvedJob, command: str) -> None:
    """Raise JobError InvalidJob where a command needs one base and the job still has candidates."""
    if job.model.candidates and not job.model.source:
        raise JobError(
            "InvalidJob",
            f"spec.model.candidates: {command} needs one base, and the job chooses it when it starts: `unfreeze rank FILE` says"
            " which, after a pass of at most 1,000 training rows through each of them; name that in spec.model.source",
        )
