"""A job that succeeded or failed stays as it is: nothing is made again, whatever becomes of its children."""

from __future__ import annotations

from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_operator.observed.context import Context, Verdict


def is_finished(status: FineTuneJobStatus) -> bool:
    """Whether the job's outcome stands. A failure without a completion time, such as an invalid spec, can mend."""
    return status.completion_time is not None


def check(context: Context) -> Verdict | None:
    """Stop when the job has finished."""
    if not is_finished(context.status):
        return None
    return Verdict("Finished", "the job has finished", stop=True)
