"""What the workers of a pod may take: the container's limit, the machine's memory, each accelerator's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob


@dataclass(frozen=True)
class Room:
    """Memory that there is for some workers of a job, in bytes; None where nobody says."""

    host: int | None
    """Of the host, for all workers that share it."""
    owner: str
    """Whose that is, for people."""
    accelerator: int | None = None
    """Of each worker's accelerator; None without one."""
    workers: int = 1
    """That share the host's."""

    @classmethod
    def here(cls, job: ResolvedJob) -> Room:
        """Return what this process and its neighbours may take."""
        import torch

        place = job.distribution
        # `unfreeze run` has all agents of a job on one machine.
        together = place.rendezvous_host.startswith("127.")
        host, owner = host_memory()
        accelerator = None
        if torch.cuda.is_available():
            local = int(os.environ.get("LOCAL_RANK", "0"))
            accelerator = int(torch.cuda.get_device_properties(local).total_memory)
        return cls(host, owner, accelerator, place.world_size if together else place.num_proc_per_node)


def host_memory(root: Path = Path("/")) -> tuple[int | None, str]:
    """Return the most that may be held before the kernel ends something, swap included, and whose limit that is.

    Parameters
    ----------
    root
        Of the file system with /proc and /sys.
    """
    machine = _machine(root / "proc/meminfo")
    container = _container(root)
    if container is not None and (machine is None or container < machine):
        return container, "the memory limit of the pod"
    return machine, "the memory of the machine"


def _machine(file: Path) -> int | None:
    fields = dict(line.split(":", 1) for line in _text(file).splitlines() if ":" in line)
    found = [int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "SwapTotal") if name in fields]
    return sum(found) or None


def _container(root: Path) -> int | None:
    """Return the least limit of the control groups that this process is in, None without one."""
    groups, limits = root / "sys/fs/cgroup", []
    for line in _text(root / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            place = groups / path.lstrip("/")
            limits += [_limit(each, "memory.max", "memory.swap.max") for each in (place, *place.parents)]
        elif "memory" in kinds.split(","):  # the first version, where both together have a limit
            limits += [_limit(groups / "memory" / path.lstrip("/"), "memory.memsw.limit_in_bytes")]
            limits += [_limit(groups / "memory", "memory.memsw.limit_in_bytes")]
    return min((limit for limit in limits if limit is not None), default=None)


def _limit(group: Path, *files: str) -> int | None:
    """Return the sum of the numbers in a group's files; None where one is not there or says `max`."""
    found = [_text(group / file).strip() for file in files]
    return sum(map(int, found)) if all(text.isdecimal() for text in found) else None


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
