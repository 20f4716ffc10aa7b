"""A run folder that is finished: the same job started again ends at once, without waiting for other pods."""

from __future__ import annotations

from pathlib import Path

from unfreeze_api.progress import Progress
from unfreeze_api.resolve import ResolvedJob


def finished_before(job: ResolvedJob) -> Progress | None:
    """Return the progress of a run that is finished, None when there is something left to do.

    Raises
    ------
    JobError
        The folder holds the finished run of another job, or data or base model have changed since.
    """
    folder = Path(job.output.path)
    if not (folder / "report.json").is_file():
        return None
    from unfreeze_trainer.checkpoints import Identity
    from unfreeze_trainer.report import finished_progress, read_report, require_same
    from unfreeze_trainer.tasks import open_task

    report = read_report(folder)
    if report is None:
        return None
    Identity(job.fingerprint(), {}).require({"fingerprint": report.fingerprint}, folder)  # before anything is hashed
    require_same(report, Identity(job.fingerprint(), open_task(job).pins), folder)
    return finished_progress(report)
