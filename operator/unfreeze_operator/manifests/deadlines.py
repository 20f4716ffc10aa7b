"""What a run of a job may take: activeDeadlineSeconds of its Job, which counts from the Job's start. Pure."""

from __future__ import annotations

from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_api.spec.job import FineTuneJobSpec
from unfreeze_operator.objects.carried import Carried, at_work_since, ran
from unfreeze_operator.objects.views import JobView


def active_deadline(spec: FineTuneJobSpec, carried: Carried) -> int | None:
    """Return the seconds that this run may take: what earlier runs have left of the job's."""
    seconds = spec.run_policy.active_deadline_seconds
    return None if seconds is None else max(1, seconds - carried.active_seconds)


def gang_deadline(spec: FineTuneJobSpec, carried: Carried, status: FineTuneJobStatus, job: JobView) -> int | None:
    """Return the seconds that the run of a Job in a PodGroup may take: none while its gang waits, which the Job would count."""
    left, since = active_deadline(spec, carried), at_work_since(status)
    if left is None or job.suspended or job.started is None or since is None or since < job.started:
        return None
    return max(1, int((since - job.started).total_seconds()) + left - (ran(status) - carried.ran_before))
