"""The leader's look before the first step: what cannot fit fails at once, with ways that fit."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.estimates.aside import Aside, AsideError

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.estimates.estimate import Estimate
    from unfreeze_trainer.estimates.trace import Traced
    from unfreeze_trainer.tasks import Task

log = logging.getLogger(__name__)

PATIENCE = 0.9
"""Seconds that a job waits for the look, beside the time in which its model is loaded."""
SURELY = 1.1
"""How many times the limit the steps must need before a job is refused: estimates of ZeRO are up to 6 % too high."""
_LIMIT = Path("/sys/fs/cgroup/memory.max")


class Check:
    """A look that goes on while the model is loaded.

    Parameters
    ----------
    job, task
        Opened on the leader, which has joined no group.
    limit
        Bytes that this pod may use; None where nothing limits it: then there is no look. Nor is there one where the
        estimate may be too high: with FSDP, a quantised base, or an accelerator.
    """

    def __init__(self, job: ResolvedJob, task: Task, limit: int | None) -> None:
        from unfreeze_trainer.estimates.trace import Traced, trace

        self._job, self._task, self._limit, self._base = job, task, limit, resident()
        self._patience: float | None = PATIENCE
        known = limit and _is_exact(job)
        self._aside = Aside(lambda: trace(job, task, heaviest=True), Traced) if known else None

    def require(self) -> None:
        """Wait for the look, not longer than PATIENCE.

        Raises
        ------
        JobError
            DoesNotFit: the steps alone need more than the pod's limit.
        """
        if not self._aside:
            return
        try:
            traced = self._aside.result(self._patience)
        except AsideError as error:
            log.info("the job's memory is not known beforehand: %s", error)
            return
        if traced:
            self._judge(self._estimate(self._job, traced))

    def _judge(self, found: Estimate) -> None:
        from unfreeze_trainer.estimates.ways import told, ways_that_fit

        log.info("%s", found.sentence())
        if found.least <= SURELY * (self._limit or 0):
            return
        ways = ways_that_fit(self._job, self._ask)
        raise JobError("DoesNotFit", f"{found.sentence()} {told(ways)}")

    def _ask(self, job: ResolvedJob) -> Estimate | None:
        from unfreeze_trainer.estimates.trace import Traced, trace

        try:
            return self._estimate(job, Aside(lambda: trace(job, self._task, heaviest=True), Traced).result())
        except AsideError:  # a combination that this model does not take
            return None

    def _estimate(self, job: ResolvedJob, traced: Traced) -> Estimate:
        from unfreeze_trainer.estimates.estimate import estimate_of

        return estimate_of(job, traced, base=self._base, limit=self._limit)


def _is_exact(job: ResolvedJob) -> bool:
    """Return whether an estimate is never too high: no job is refused that would have fitted."""
    place = job.distribution
    return place.engine != "FSDP" and not place.accelerators_per_node and not job.model.quantization


def is_leader() -> bool:
    """Return whether this worker is rank 0."""
    return os.environ.get("RANK", "0") == "0"


def resident() -> int:
    """Return the bytes of this process that nobody can take from it: without the pages of files, libraries among them."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # no Linux
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:"))) * 1024


def memory_limit(file: Path = _LIMIT) -> int | None:
    """Return the bytes that the control group of this pod may use; None where nothing limits it."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
