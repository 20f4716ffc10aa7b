"""Lifecycle rules: small pure checks, one file each. The order is part of the design."""

from __future__ import annotations

from collections.abc import Callable

from unfreeze_operator.observed.context import Context, Verdict
from unfreeze_operator.policies import (
    backoff_limit,
    changed_spec,
    child_job,
    clean_pods,
    config_map,
    deadline,
    deleted,
    ended,
    finished,
    give_back,
    gone_pods,
    lost_pods,
    namesake,
    network_policy,
    not_allowed,
    pod_group,
    resume,
    service,
    startup_timeout,
    suspend,
    ttl,
)

Policy = Callable[[Context], Verdict | None]

ORDER: tuple[Policy, ...] = (
    deleted.check,
    lost_pods.check,
    clean_pods.check,
    ttl.check,
    finished.check,
    namesake.check,
    ended.check,
    backoff_limit.check,
    startup_timeout.check,
    give_back.check,
    not_allowed.check,
    config_map.check,
    service.check,
    network_policy.check,
    pod_group.check,
    child_job.check,
    suspend.check,
    changed_spec.check,
    resume.check,
    deadline.check,
    gone_pods.check,
)
"""Each is asked in turn until one stops; later ones may rely on what earlier ones have ruled out."""

RESTRAINING: frozenset[Policy] = frozenset(
    (
        deleted.check,
        lost_pods.check,
        clean_pods.check,
        ttl.check,
        finished.check,
        namesake.check,
        ended.check,
        backoff_limit.check,
        startup_timeout.check,
        give_back.check,
        not_allowed.check,
        suspend.check,
        deadline.check,
    )
)
"""Those that end, stop or take away and make nothing: the ones that are asked after another one has raised an error."""


def name(policy: Policy) -> str:
    """Return the name of a policy: its module's."""
    return policy.__module__.rpartition(".")[2]
