"""What an agent and its workers tell each other: small files in a temporary folder of the pod, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from unfreeze_api.contracts.progress import ExitCode, Progress
from unfreeze_api.grammar.model import Model

LINK_ENV = "UNFREEZE_LINK"
"""Environment variable with the folder; a worker that runs without an agent has none."""

STARTED_ENV = "UNFREEZE_STARTED"
"""Environment variable with the time at which the agent began, in seconds since the epoch."""
AGENT_ENV = "UNFREEZE_AGENT_PID"
"""Environment variable with the agent's process id."""


class WorkerError(Model):
    """Why a worker ended, left behind for its agent."""

    reason: str
    """One CamelCase word."""
    message: str
    """What happened and what to do."""
    rank: int
    """Global rank."""
    exit_code: int
    """Code that the worker exits with."""
    log_tail: str = ""
    """Last lines of the traceback."""
    time: float = 0.0
    """Seconds since the epoch; the first error of a pod is the one that is reported."""


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old text or the new one, never a part."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text)
    aside.replace(path)


class Link:
    """The folder between one agent and its workers; both sides open it by its path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stop, self._progress = str(folder / "stop"), folder / "progress.json"
        self._activity, self._memory = folder / "activity", folder / "memory-checked"

    @classmethod
    def from_environment(cls) -> Link | None:
        """Return the link that the agent put into the environment, None without an agent."""
        folder = os.environ.get(LINK_ENV)
        return cls(Path(folder)) if folder else None

    # agent -> workers
    def request_stop(self) -> None:
        """Ask the workers to agree on a step, write a checkpoint and exit with 143."""
        write_atomically(Path(self._stop), "")

    def stop_requested(self) -> bool:
        """Whether this pod was asked to stop."""
        return os.path.exists(self._stop)  # noqa: PTH110 - the loop asks, and Path costs twice

    # workers -> agent
    def write_progress(self, progress: Progress) -> None:
        """Publish how far the training is; called by the first worker of each pod."""
        with contextlib.suppress(OSError):  # a full disk must not end the training
            write_atomically(self._progress, progress.to_json())

    def read_progress(self) -> Progress | None:
        """Return the newest progress, None before there is any."""
        try:
            return Progress.read(self._progress.read_bytes())
        except (OSError, ValueError):
            return None

    def progress_age(self) -> float | None:
        """Return the seconds since progress was last written, None before there is any."""
        try:
            return max(0.0, time.time() - self._progress.stat().st_mtime)
        except OSError:
            return None

    def write_activity(self, text: str) -> None:
        """Say what goes on beside training, for people; nothing while it trains."""
        with contextlib.suppress(OSError):
            write_atomically(self._activity, text)

    def read_activity(self) -> str:
        """Return what goes on beside training."""
        try:
            return self._activity.read_text()
        except OSError:
            return ""

    # worker -> the other workers of a pod
    def say_memory_checked(self) -> None:
        """Let the others load the model: it may fit."""
        with contextlib.suppress(OSError):
            write_atomically(self._memory, "")

    def memory_checked(self) -> bool:
        """Whether the first worker has found, in this start or an earlier one, that the job may fit."""
        return self._memory.exists()

    def wait_for_memory_check(self, most: float) -> None:
        """Wait until it has, so many seconds at most, or until the pod is asked to stop."""
        until = time.monotonic() + most
        while not (self._memory.exists() or self.stop_requested() or time.monotonic() > until):
            time.sleep(0.02)

    def write_error(self, error: WorkerError) -> None:
        """Leave behind why this worker ends."""
        with contextlib.suppress(OSError):
            write_atomically(self.folder / f"error-{error.rank}.json", error.to_json())

    def errors(self) -> list[WorkerError]:
        """Return what the workers left behind; errors of the job itself first, then by time."""
        found = []
        for path in self.folder.glob("error-*.json"):
            with contextlib.suppress(OSError, ValueError):
                found.append(WorkerError.read(path.read_bytes()))
        return sorted(found, key=lambda error: (error.exit_code != ExitCode.JOB_ERROR, error.time))

    def clear_errors(self) -> None:
        """Forget errors of an earlier start of the workers."""
        for path in self.folder.glob("error-*.json"):
            path.unlink(missing_ok=True)


def tell(link: Link | None, activity: str) -> None:
    """Say what a pod's first worker does beside training, if it has an agent; the others do the same."""
    if link is not None and os.environ.get("LOCAL_RANK", "0") == "0":
        link.write_activity(activity)


def read_json(path: Path) -> Any:
    """Return a JSON file's value, None when it is missing or broken."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
