"""runPolicy.startupTimeoutSeconds: a gang that does not become complete does not wait for ever."""

from __future__ import annotations

from datetime import timedelta

from unfreeze_api.contracts.status import Failure
from unfreeze_operator.objects.waiting import describe
from unfreeze_operator.observed.context import Context, Verdict
from unfreeze_operator.observed.gangs import incomplete_since


def check(context: Context) -> Verdict | None:
    """End a job whose pods do not all run in time; wake up when the time will be over."""
    seconds = context.spec.run_policy.startup_timeout_seconds
    since = incomplete_since(context)
    if seconds is None or since is None:
        return None
    left = (since + timedelta(seconds=seconds) - context.now).total_seconds()
    if left > 0:
        return Verdict("Starting", f"the pods have {left:.0f} s left to run", requeue_after=left)
    desired, waits = context.spec.distribution.num_nodes, context.children.waiting(context.now)
    text = f"{context.children.running} of {desired} pods ran after runPolicy.startupTimeoutSeconds, {seconds} s"
    failure = Failure(
        reason="StartupTimeout",
        message=f"{text}; {describe(waits) if waits else 'no pod says why, see the events of its Job'}"[:4096],
        pod=waits[0][0] if waits else None,
    )
    return Verdict("StartupTimeout", text, stop=True, failure=failure)
