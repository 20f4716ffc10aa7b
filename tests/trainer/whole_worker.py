"""A worker's whole work in a forked rank; what it exports is loaded in this process, where a worker starts a fresh one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from tests.trainer.kill_group import Moment, arm
from tests.trainer.ranks import log_to, run_gang
from unfreeze_trainer import tasks, worker
from unfreeze_trainer.models import export
from unfreeze_trainer.models.plain import plain_outputs


@patch.object(export, "reload", plain_outputs)
def work(job, log: Path) -> int:
    """Train, export and report; return the exit code."""
    log_to(log)
    return worker.work(job, tasks.open_task, None)


def work_and_die(job, moment: Moment, log: Path) -> int:
    """Work until a moment, at which the process is killed."""
    arm(moment, Path(job.output.path))
    return work(job, log)


def ends_as_undisturbed(job_in: Callable, folder: Path) -> dict:
    """Run a job of two workers whole, and again with a kill in between; return the results, which are the same, as all bits are.

    `job_in` makes the job, of the name of its run in the folder.
    """
    log = folder / "log"
    assert run_gang(2, work, job_in("whole"), log) == [0, 0], log.read_text()
    assert -9 in run_gang(2, work_and_die, job_in("killed"), Moment("step", 5), log)
    assert run_gang(2, work, job_in("killed"), log) == [0, 0], log.read_text()
    one, other = (json.loads((folder / name / "report.json").read_text()) for name in ("whole", "killed"))
    assert one["results"] == other["results"]
    weights = [(folder / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]
    return one
