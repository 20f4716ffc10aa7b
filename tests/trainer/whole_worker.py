"""A worker's whole work in a forked rank; what it exports is loaded in this process, where a worker starts a fresh one."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from tests.trainer.ranks import log_to
from unfreeze_trainer import tasks, worker
from unfreeze_trainer.models import export
from unfreeze_trainer.models.plain import plain_outputs


@patch.object(export, "reload", plain_outputs)
def work(job, log: Path) -> int:
    """Train, export and report; return the exit code."""
    log_to(log)
    return worker.work(job, tasks.open_task, None)
