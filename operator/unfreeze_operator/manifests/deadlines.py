"""What a run of a job may take: activeDeadlineSeconds of its Job, which counts from the Job's start. Pure."""

from __future__ import annotations

from datetime import datetime

from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_api.spec.job import FineTuneJobSpec
from unfreeze_operator.objects.carried import Carried, ran
from unfreeze_operator.objects.views import JobView


def active_deadline(spec: FineTuneJobSpec, carried: Carried) -> int | None:
    """Return the seconds that this run may take: what earlier runs have left of the job's."""
    seconds = spec.run_policy.active_deadline_seconds
    return None if seconds is None else max(1, seconds - carried.active_seconds)


def gang_deadline(
    spec: FineTuneJobSpec, carried: Carried, status: FineTuneJobStatus, job: JobView, since: datetime | None
) -> int | None:
    """Return the seconds that the run of a Job in a PodGroup may take: none while its gang waits, which the Job would count.

    Parameters
    ----------
    since
        Since when the gang has been at work, or has had nodes; None while it waits.
    """
    left = active_deadline(spec, carried)
    if left is None or job.suspended or job.started is None or since is None:
        return None
    used = max(0, ran(status) - carried.ran_before)
    return max(1, max(0, int((since - job.started).total_seconds())) + left - used)
