"""What a policy looks at, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from unfreeze_api.contracts.status import Failure, FineTuneJobStatus
from unfreeze_api.spec.job import FineTuneJobSpec
from unfreeze_operator.objects.actions import Action
from unfreeze_operator.objects.carried import Carried, read_carried
from unfreeze_operator.objects.kueue import WorkloadView
from unfreeze_operator.objects.pod_groups import PodGroupView, without_a_word
from unfreeze_operator.objects.resources import GangNames, child_name
from unfreeze_operator.objects.views import (
    ChildView,
    ConfigMapView,
    FineTuneJobView,
    JobView,
    NetworkPolicyView,
    PodView,
    ServiceView,
)
from unfreeze_operator.objects.waiting import Waiting, telling
from unfreeze_operator.settings.allowed import DEFAULT, Allowed
from unfreeze_operator.settings.network import ISOLATED, Network
from unfreeze_operator.settings.options import GANG_PATIENCE, LOST_POD_GRACE, TrainerImage
from unfreeze_operator.settings.prices import NO_PRICES, Prices
from unfreeze_operator.settings.sources import NOTHING, Sources


@dataclass(frozen=True, slots=True)
class Children:
    """The objects that carry a job's label."""

    job: JobView | None = None
    service: ServiceView | None = None
    config_map: ConfigMapView | None = None
    network_policy: NetworkPolicyView | None = None
    pods: tuple[PodView, ...] = ()
    """Pods of the job's own child Job, oldest first."""
    departed: tuple[PodView, ...] = ()
    """Those that ended and were deleted before anybody looked at what they said."""
    workload: WorkloadView | None = None
    """What Kueue makes of the child Job."""
    pod_group: PodGroupView | None = None
    """The gang as the scheduler sees it."""
    sees_groups: bool = False
    """Whether the server has such objects, and shows them."""
    namesakes: tuple[ChildView, ...] = ()
    """Objects of the same names that belong to somebody else, such as an earlier job of the same name."""

    @classmethod
    def of(
        cls,
        owner: str,
        jobs: list[JobView],
        services: list[ServiceView],
        config_maps: list[ConfigMapView],
        network_policies: list[NetworkPolicyView],
        *,
        pods: list[PodView],
        departed: list[PodView],
        workloads: Sequence[WorkloadView] = (),
        pod_groups: Sequence[PodGroupView] | None = None,
    ) -> Children:
        """Sort objects with the job's label into the job's own, by the UID of their owner, and others'; None is what cannot be seen."""
        groups = pod_groups or ()
        own_job = next((job for job in jobs if job.owner == owner), None)
        own_pods = sorted(
            (pod for pod in pods if own_job and pod.owner == own_job.uid), key=lambda pod: (pod.created, pod.name)
        )
        others: list[ChildView] = [
            view for view in (*jobs, *services, *config_maps, *network_policies, *groups) if view.owner != owner
        ]
        others += [pod for pod in pods if pod.live and not (own_job and pod.owner == own_job.uid)]
        return cls(
            job=own_job,
            service=next((service for service in services if service.owner == owner), None),
            config_map=next((config_map for config_map in config_maps if config_map.owner == owner), None),
            network_policy=next((policy for policy in network_policies if policy.owner == owner), None),
            pods=tuple(own_pods),
            departed=tuple(pod for pod in departed if own_job and pod.owner == own_job.uid),
            workload=next((w for w in workloads if own_job and w.owner == own_job.uid), None),
            pod_group=next((group for group in groups if group.owner == owner), None),
            sees_groups=pod_groups is not None,
            namesakes=tuple(others),
        )

    @property
    def live_pods(self) -> list[PodView]:
        """Pods that may still run."""
        return [pod for pod in self.pods if pod.live]

    @property
    def running(self) -> int:
        """Of how many indices a pod runs or is done."""
        return self.finished + len({pod.index for pod in self.pods if pod.phase == "Running"} - self.done)

    @property
    def placed(self) -> int:
        """Of how many indices a pod has a node, or is done."""
        return self.finished + len({pod.index for pod in self.live_pods if pod.node} - self.done)

    @property
    def present(self) -> int:
        """Of how many indices there is a pod that may run, or one is done."""
        return self.finished + len({pod.index for pod in self.live_pods} - self.done)

    @property
    def placed_since(self) -> datetime | None:
        """Since when a pod of this run has had a node that has heard of it; None while none has."""
        begun = self.job.started if self.job is not None else None
        own = (pod for pod in self.live_pods if pod.node and begun is not None and pod.created >= begun)
        return min((pod.scheduled or pod.started for pod in own if pod.started is not None), default=None)

    @property
    def done(self) -> set[int]:
        """Indices whose pods are there, and done."""
        return {pod.index for pod in self.pods if pod.phase == "Succeeded"}

    @property
    def finished(self) -> int:
        """Of how many indices the pods are done, whether or not they are still there."""
        return max(len(self.done), self.job.succeeded if self.job is not None else 0)

    @property
    def gang_waits(self) -> bool:
        """Whether the gang holds nothing and waits, as a whole, for the scheduler to find a place for all of it."""
        grouped, live = self.job is not None and self.job.pod_group, self.live_pods
        return bool(grouped and live and not any(pod.node for pod in live))

    def waits(self) -> list[tuple[PodView, Waiting]]:
        """Return the pods that wait, by index, and what for: in their own words, else in those of their group."""
        pods = sorted(self.live_pods, key=lambda pod: (pod.index, pod.name))
        found = ((pod, pod.waiting or self._of_group(pod)) for pod in pods)
        return [(pod, what) for pod, what in found if what is not None]

    def waiting(self, now: datetime) -> list[tuple[str, Waiting]]:
        """Return the pods whose waiting is worth a word, by index, and what each waits for."""
        return telling([(pod.name, what, pod.created) for pod, what in self.waits()], now)

    def _of_group(self, pod: PodView) -> Waiting | None:
        grouped = self.sees_groups and self.job is not None and self.job.pod_group
        if pod.node or pod.phase != "Pending" or not grouped:
            return None
        return without_a_word(grouped, self.pod_group, self.live_pods)


@dataclass(frozen=True)  # no slots: it keeps what it has read
class Context:
    """Everything that a decision about a job is made from."""

    job: FineTuneJobView
    spec: FineTuneJobSpec
    status: FineTuneJobStatus
    """As it was written last."""
    children: Children
    now: datetime
    image: TrainerImage
    """Trainer image when the template names none, and what it is pulled with."""
    lost_pod_grace: float = LOST_POD_GRACE
    """Seconds beyond its grace period after which a pod is taken for lost with its node; 0 for never."""
    gang_patience: float = GANG_PATIENCE
    """Seconds that a gang may hold nodes while it finds too few; 0 for ever."""
    network: Network = ISOLATED
    """Whom the pods may talk to beside each other."""
    warnings: tuple[str, ...] = ()
    """What is out of date in the spec as it is stored, or in the way of another job."""
    allowed: Allowed = DEFAULT
    """What the platform lets jobs ask for."""
    sources: Sources = field(default_factory=lambda: NOTHING)
    """What the platform lets jobs read over the network."""
    prices: Prices = NO_PRICES
    """What accelerators cost."""
    silent: bool = False
    """Whether the leader, which answered before, has left two questions in a row unanswered."""

    @property
    def accelerators(self) -> int:
        """Accelerators of each pod."""
        return self.spec.distribution.accelerators_per_node

    @cached_property
    def at_work(self) -> int:
        """Of how many indices a pod is done, or runs on a node that is heard of and stays there.

        A pod that is taken away still runs while it writes its checkpoint; a suspend waits for that, nothing else does.
        """
        stopping = self.spec.run_policy.suspend
        pods = (pod for pod in self.children.pods if pod.phase == "Running" and not pod.unheard)
        working = {pod.index for pod in pods if stopping or not pod.deleting}
        return self.children.finished + len(working - self.children.done)

    @cached_property
    def carried(self) -> Carried:
        """Totals of the runs before this one, as the child Job carries them."""
        return read_carried(self.children.job)

    @property
    def names(self) -> GangNames:
        """Names of the child Job and the Service: what a job began with stays, also where one of them is made again."""
        job, service, config_map = self.children.job, self.children.service, self.children.config_map
        names, earlier = GangNames.of(self.job.name), child_name(self.job.name)
        if config_map is not None:
            names = GangNames(config_map.child_job or earlier, config_map.service or earlier)
        if job is not None:
            names = GangNames(job.name, job.subdomain or names.service)
        return names if service is None else replace(names, service=service.name)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one policy says."""

    reason: str
    """One CamelCase word."""
    message: str
    """For people."""
    actions: tuple[Action, ...] = field(default=())
    stop: bool = False
    """Whether later policies have nothing to say."""
    requeue_after: float | None = None
    """Seconds after which to look again."""
    failure: Failure | None = None
    """Why the job ends, where the operator ends it and not the Job controller."""


def sharing(others: Sequence[str]) -> list[str]:
    """Return a warning that other jobs of the namespace, which have not ended, write to the same place; none without."""
    if not others:
        return []
    names = ", ".join(sorted(others))
    named = names if len(names) <= _NAMED else f"{names[:_NAMED]}… ({len(others)} jobs)"
    return [
        f"{SHARED}{named}: the first that trains there keeps the others out. Give each job a destination of its own"
    ]


SHARED = "spec.output.destination is also that of "
"""How a warning begins that is about other jobs."""
_NAMED = 300
"""Characters of names; a warning has 512."""
