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
    container = _container(root, _swap(root / "proc/meminfo"))
    if container is not None and (machine is None or container < machine):
        return container, "the memory limit of the pod"
    return machine, "the memory of the machine"


def _machine(file: Path) -> int | None:
    return (_memory(file).get("MemTotal", 0) + _swap(file)) or None


def _swap(file: Path) -> int:
    return _memory(file).get("SwapTotal", 0)


def _memory(file: Path) -> dict[str, int]:
    """Return the fields of meminfo in bytes."""
    fields = dict(line.split(":", 1) for line in _text(file).splitlines() if ":" in line)
    return {name: int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "SwapTotal") if name in fields}


def _container(root: Path, swap: int) -> int | None:
    """Return the least limit of the control groups that this process is in, with the swap that they may use; None without one."""
    groups, limits = root / "sys/fs/cgroup", []
    for line in _text(root / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            place = groups / path.lstrip("/")
            for each in (place, *place.parents):
                if (limit := _number(each / "memory.max")) is not None:
                    most = _number(each / "memory.swap.max")
                    limits.append(limit + (swap if most is None else min(most, swap)))
        elif "memory" in kinds.split(
            ","
        ):  # the first version, where both together have a limit, if swap is counted at all
            for each in (groups / "memory" / path.lstrip("/"), groups / "memory"):
                if (limit := _number(each / "memory.limit_in_bytes")) is not None:
                    both = _number(each / "memory.memsw.limit_in_bytes")
                    limits.append(limit + swap if both is None else min(both, limit + swap))
    return min(limits, default=None)


def _number(file: Path) -> int | None:
    """Return the number in a group's file; None where it is not there or says `max`."""
    text = _text(file).strip()
    return int(text) if text.isdecimal() else None


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
