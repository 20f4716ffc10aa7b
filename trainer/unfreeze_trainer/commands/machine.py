"""One machine in place of a cluster: how many workers of a job it runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob

_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_DEVICES = re.compile(r"nvidia\d+|renderD\d+|accel\d+")


def accelerators(environment: Mapping[str, str] = os.environ, devices: Iterable[Path] | None = None) -> int:
    """Return how many accelerators a process may use here, without the second that asking torch would take.

    What CUDA_VISIBLE_DEVICES or ROCm's variables allow; else the devices of NVIDIA, of AMD where its compute driver is
    loaded, or of Habana.
    """
    for name in _VISIBLE:
        if name in environment:
            allowed = [part for part in environment[name].split(",") if part.strip()]
            return 0 if "-1" in allowed else len(allowed)
    found = [*Path("/dev").glob("*"), *Path("/dev").glob("*/*")] if devices is None else list(devices)
    names = [path.name for path in found if _DEVICES.fullmatch(path.name)]
    amd = any(path.name == "kfd" for path in found)
    return sum(amd or not name.startswith("render") for name in names)


def fitted(job: ResolvedJob, *, workers: int | None, present: int) -> tuple[ResolvedJob, str]:
    """Return a job with as many workers as this machine has accelerators, and what there is to say about it.

    A job that asks for none keeps its workers, which are processes on the CPU; one that asks for more than there are gets
    those that there are, and without any one worker with all threads. Samples of a step and their order do not depend on it.

    Parameters
    ----------
    workers
        As the user wants it; None leaves it to the job and the machine.
    present
        Accelerators of this machine.
    """
    place = job.distribution
    wanted = place.accelerators_per_node * place.num_nodes
    if workers is None:
        if not wanted or present >= wanted:
            return job, ""
        workers = max(1, present)
        have = f"this machine has {present}" if present else "this machine has none"
        runs = (
            f"{workers} workers"
            if workers > 1
            else "1 worker" + ("" if present else " on the CPU, with all its threads")
        )
        text = f"the job asks for {wanted} accelerators, {have}: {runs} (--workers N for another number)"
    else:
        text = ""
    update = {"num_nodes": 1, "num_proc_per_node": workers, "threads_per_proc": None}
    return job.model_copy(update={"distribution": place.model_copy(update=update)}), text
