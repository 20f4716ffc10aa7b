"""job.json at the start of an agent or worker: read, or an error of the job that says what to do."""

from __future__ import annotations

import logging
from pathlib import Path

from unfreeze_api.contracts.job_file import JobFileError, ignored_fields, read_job
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.errors import JobError

log = logging.getLogger("unfreeze.job")


def load_job(path: Path, *, say: bool) -> ResolvedJob:
    """Return the job in a job.json.

    Parameters
    ----------
    path
        Of job.json.
    say
        Whether fields that are ignored are worth a line in the log: once in a pod.

    Raises
    ------
    JobError
        UnsupportedJobFile or InvalidJob.
    """
    try:
        text = path.read_bytes()
        job = read_job(text)
    except JobFileError as error:
        raise JobError(error.reason, f"{path}: {error}") from error
    except OSError as error:
        raise JobError("InvalidJob", f"{path} cannot be read: {error.strerror}") from error
    if say and (ignored := ignored_fields(text)):
        log.warning(
            "%s is of a newer operator; ignored, as this version does not know it: %s", path, ", ".join(ignored)
        )
    return job
