"""A worker's work on audio in a forked rank, which may die in the middle."""

from __future__ import annotations

from pathlib import Path

from tests.trainer.kill_group import Moment, arm
from tests.trainer.whole_worker import work


def work_until(job, log: Path, step: int | None) -> int:
    """Do a worker's whole work, or die by SIGKILL after a step."""
    if step is not None:
        arm(Moment("step", step), Path(job.output.path))
    return work(job, log)
