"""What the person who runs the operator may choose."""

from __future__ import annotations

from dataclasses import dataclass, field

from unfreeze_operator.settings.allowed import DEFAULT, Allowed
from unfreeze_operator.settings.network import ISOLATED, Network
from unfreeze_operator.settings.prices import NO_PRICES, Prices
from unfreeze_operator.settings.sources import NOTHING, Sources

LOST_POD_GRACE = 60.0
GANG_PATIENCE = 600.0


@dataclass(frozen=True)
class TrainerImage:
    """What pods run whose template names no image of its own, and what images are pulled with where it names nothing."""

    name: str
    pull_secrets: tuple[str, ...] = ()
    """Names of Secrets, which must exist in the job's namespace."""


@dataclass(frozen=True)
class Settings:
    """Options of the operator's process; see `unfreeze-operator --help`."""

    trainer_image: str
    trainer_pull_secrets: tuple[str, ...] = ()
    """Secrets that trainer images are pulled with."""
    namespaces: tuple[str, ...] = ()
    """Namespaces to look after; none for all."""
    http_host: str = "0.0.0.0"  # noqa: S104 - probes and Prometheus come from outside the pod
    http_port: int = 8080
    metrics_token_review: bool = False
    """Whether /metrics asks for a token of an account that may get the nonResourceURL /metrics."""
    workers: int = 16
    """Jobs that are reconciled at the same time."""
    progress_interval: float = 2.0
    """Seconds from one look at a running job's progress to the next."""
    status_interval: float = 5.0
    """Least seconds from one write of a running job's status to the next, unless phase, a condition or failure change."""
    progress_rate: float = 100.0
    """Looks a second over all jobs; with more running jobs each is looked at less often."""
    progress_concurrency: int = 64
    """Looks under way at the same time."""
    lost_pod_grace: float = LOST_POD_GRACE
    """Seconds beyond its grace period after which a pod that is being deleted is given up, as lost with its node; 0 for
    never."""
    gang_patience: float = GANG_PATIENCE
    """Seconds that a gang may hold nodes while it finds too few, before it gives them back for a while; 0 for ever."""
    network: Network = ISOLATED
    """Whom trainers may talk to beside their gang."""
    allowed: Allowed = DEFAULT
    """What jobs may ask for beside a restricted pod."""
    sources: Sources = field(default_factory=lambda: NOTHING)
    """What jobs may read over the network."""
    prices: Prices = NO_PRICES
    """What accelerators cost."""
    lease_namespace: str = ""
    """Where the Lease lies by which one of several operators is chosen; none for no election."""
    lease_name: str = "unfreeze-operator"
    lease_seconds: float = 15.0
    """Seconds after which another operator takes over from one that has died."""
    watch_silence: float = 90.0
    """Seconds without a word, after which a watch is taken for dead: a server sends a bookmark each minute."""
    audit_interval: float = 300.0
    """Seconds from one comparison of the known jobs with the API server's list to the next."""
