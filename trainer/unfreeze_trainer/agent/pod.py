"""What an agent knows of its pod: index, addresses, ports, processors. Read once, from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unfreeze_api.contracts.progress import CONFIG_FOLDER, HTTP_PORT, JOB_FILE_ENV

if TYPE_CHECKING:  # a third of the time to the first answer
    from unfreeze_api.contracts.resolved import ResolvedJob

TERMINATION_LOG_ENV, PORT_ENV = "UNFREEZE_TERMINATION_LOG", "UNFREEZE_HTTP_PORT"
PARENT_ENV = "UNFREEZE_PARENT_PID"
"""Environment variable with the process that an agent stops after; a pod's agent has none."""


@dataclass(frozen=True)
class Pod:
    """The place that an agent runs in."""

    index: int
    """JOB_COMPLETION_INDEX: 0 hosts the rendezvous and leads."""
    ip: str
    """POD_IP; empty when not given, then everything is served on all interfaces."""
    http_port: int
    """Port of the agent's server."""
    job_file: Path
    """job.json."""
    termination_log: Path
    """Where the termination message goes."""
    parent: int | None = None
    """Process without which there is nothing to run for: `unfreeze run`."""

    def orphaned(self) -> bool:
        """Return whether the process that this one runs for is gone."""
        return self.parent is not None and os.getppid() != self.parent

    @classmethod
    def from_environment(cls) -> Pod:
        """Read the variables that the operator and Kubernetes set."""
        environment = os.environ
        return cls(
            index=int(environment.get("JOB_COMPLETION_INDEX", "0")),
            ip=environment.get("POD_IP", ""),
            http_port=int(environment.get(PORT_ENV, HTTP_PORT)),
            job_file=Path(environment.get(JOB_FILE_ENV, f"{CONFIG_FOLDER}/job.json")),
            termination_log=Path(environment.get(TERMINATION_LOG_ENV, "/dev/termination-log")),
            parent=int(environment[PARENT_ENV]) if PARENT_ENV in environment else None,
        )

    def host(self, job: ResolvedJob) -> str:
        """Return the name that other pods reach this one under.

        The rendezvous sorts ranks by it, and index 0 sorts first: rank 0 stays on pod 0, whoever comes first. Pods are
        named JOB-INDEX below their service; without such a name the address serves.
        """
        first, dot, domain = job.distribution.rendezvous_host.partition(".")
        if first.endswith("-0"):
            return f"{first[:-1]}{self.index}{dot}{domain}"
        return self.ip or job.distribution.rendezvous_host


def threads_per_worker(job: ResolvedJob) -> int:
    """Return OMP_NUM_THREADS of each worker: the job's, else what is set, else the pod's processors shared out."""
    if job.distribution.threads_per_proc:
        return job.distribution.threads_per_proc
    if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        return int(threads)
    return max(1, available_cpus() // job.distribution.num_proc_per_node)


def available_cpus() -> int:
    """Return the processors that this process may use, by affinity and by the control group's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cpus, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return cpus


def kernel_oom_kills() -> int:
    """Return how many processes of this pod the kernel has killed for memory."""
    try:
        lines = Path("/sys/fs/cgroup/memory.events").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
