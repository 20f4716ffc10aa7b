"""Gangs that are incomplete: since when, how long they may hold what they have, and when they try again. Pure."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from unfreeze_operator.observed.context import Context

OF_COMPLETE_GANGS = ("LeaderSilent", "NodeUnreachable")
"""Reasons for which condition Running is false although no pod is missing: what comes after them is a new beginning."""

_MAX_PATIENCES = 4
_PAUSE = 0.2
"""Share of the patience that a gang pauses after it has given its nodes back: enough for others to take them."""


def incomplete_since(context: Context) -> datetime | None:
    """Return since when the gang has been incomplete, None when it is complete, or has no reason to be.

    Nodes that were given back and taken again meanwhile do not count as a new beginning; a suspend does.
    """
    job = context.children.job
    if job is None or context.spec.run_policy.suspend:
        return None
    carried = context.carried
    if job.suspended and carried.given_back_at is None:
        return None
    started = job.started or carried.gang_since
    if started is None or context.children.running >= context.spec.distribution.num_nodes:
        return None
    known = next((found for found in context.status.conditions if found.type == "Running"), None)
    changed = started
    if known is not None:
        complete = known.status == "True" or known.reason in OF_COMPLETE_GANGS
        changed = context.now if complete else known.last_transition_time
    if carried.gang_since is not None and changed <= carried.gang_since:
        return carried.gang_since
    return max(started, changed)


def patience(context: Context) -> float:
    """Return for how many seconds a gang may hold some nodes without the others.

    It differs from job to job and from try to try, so that of gangs that block one another one gives way first; who has
    given way more often holds on longer.
    """
    times = context.carried.given_back
    return context.gang_patience * min(_MAX_PATIENCES, 1 + times) * _factor(context.job.uid, times)


def next_try(context: Context) -> datetime | None:
    """Return when a gang that has given its nodes back may take some again."""
    carried = context.carried
    if carried.given_back_at is None:
        return None
    pause = context.gang_patience * _PAUSE * _factor(context.job.uid, -carried.given_back)
    return carried.given_back_at + timedelta(seconds=max(1, round(pause)))


def _factor(uid: str, number: int) -> float:
    """Return the factor of a pause, from 0.5 to 1.5: random, and the same at each look."""
    digest = hashlib.sha256(f"{uid}/{number}".encode()).digest()
    return 0.5 + digest[0] / 255
