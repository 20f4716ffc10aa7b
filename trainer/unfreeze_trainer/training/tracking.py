"""Experiment trackers: TensorBoard, MLflow, Weights & Biases through Accelerate's, off the training's way.

A thread hands the figures over, so that a slow server holds nothing up. A tracker that fails costs figures, never the
training: what it says is logged, and a minute later it is tried again.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unfreeze_api.contracts import series
from unfreeze_api.contracts.progress import Progress
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.link import read_json, write_atomically

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0
"""Time from one set of training figures to the next: a server must bear it from many jobs for days."""
PAUSE_SECONDS = 60.0
"""Time in which a tracker that has failed is left alone."""
CLOSE_SECONDS = 60.0
"""Time that the trackers get at the end for what they have not sent yet."""
RUNS_FILE = "tracking.json"
"""In the run folder: the ids of the runs, so that a job that resumes writes into the same ones."""

_PACKAGES = {
    "tensorBoard": ("tensorboard", "tensorboardX"),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
}
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",  # else MLflow 3 refuses file:///, which is right for many users, and chosen here
    "GIT_PYTHON_REFRESH": "quiet",  # MLflow looks for git, which images do not have
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
}
"""What the environment sets for the libraries, where the user has set nothing else."""


class Tracking:
    """Hands figures to the trackers of a job, on the rank that has them; elsewhere, and without trackers, to nobody.

    Parameters
    ----------
    job
        Its `tracking` says which.
    step
        Optimizer steps done: figures of later steps, from before a crash, are hidden where the tracker can.
    enabled
        Whether this rank tells.
    """

    def __init__(self, job: ResolvedJob, step: int, *, enabled: bool) -> None:
        wanted = _wanted(job)
        self._entries: queue.SimpleQueue[tuple[dict[str, float], int] | int | None] = queue.SimpleQueue()
        self._last = float("-inf")
        self._thread: threading.Thread | None = None
        if wanted and enabled:
            for name, value in _DEFAULTS.items():
                os.environ.setdefault(name, value)
            trackers = [_Tracker(name, _OPENERS[name], job, step) for name in wanted]
            self._thread = threading.Thread(target=self._hand_over, args=(trackers,), name="tracking", daemon=True)
            self._thread.start()

    def progress(self, progress: Progress) -> None:
        """Hand over loss, rates and speed, now and then."""
        if self._thread is None or progress.loss is None or time.monotonic() - self._last < PROGRESS_SECONDS:
            return
        self._last = time.monotonic()
        self._entries.put((series.tracked(progress), progress.step))

    def metrics(self, split: str, metrics: Mapping[str, float], step: int) -> None:
        """Hand over the metrics of a split."""
        if self._thread is not None:
            self._entries.put(({f"{split}/{name}": value for name, value in metrics.items()}, step))

    def went_back(self, step: int) -> None:
        """Have the trackers go on from an earlier step, as a start that resumes from it would."""
        if self._thread is not None:
            self._last = float("-inf")
            self._entries.put(step)

    def close(self) -> None:
        """Wait until everything is sent, but not for ever."""
        if self._thread is None:
            return
        self._entries.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            log.warning("the trackers do not take the last figures within %.0f s: they are left out", CLOSE_SECONDS)

    def _hand_over(self, trackers: list[_Tracker]) -> None:
        while (entry := self._entries.get()) is not None:
            for tracker in trackers:
                if isinstance(entry, int):
                    tracker.go_back(entry)
                else:
                    tracker.log(*entry)
        for tracker in trackers:
            tracker.finish()


class _Tracker:
    """One of Accelerate's trackers, opened when there is something to tell."""

    def __init__(self, name: str, opener: Callable[[ResolvedJob, int], Any], job: ResolvedJob, step: int) -> None:
        self._name, self._opener, self._job, self._step = name, opener, job, step
        self._tracker: Any = None
        self._silent_until = 0.0

    def log(self, values: dict[str, float], step: int) -> None:
        """Tell it; figures are lost while it fails."""
        if time.monotonic() < self._silent_until:
            return
        try:
            if self._tracker is None:
                self._tracker = self._opener(self._job, self._step)
            self._tracker.log(values, step=step)
        except Exception as error:  # noqa: BLE001 - whatever a tracker or its server does, the training continues
            self._silent_until = time.monotonic() + PAUSE_SECONDS
            log.warning(
                "%s fails, the training continues without it: %s: %s (next try in %.0f s)",
                self._name, type(error).__name__, error, PAUSE_SECONDS,
            )  # fmt: skip

    def go_back(self, step: int) -> None:
        """End its run; the next figures open it again at a step."""
        self.finish()
        self._tracker, self._step = None, step

    def finish(self) -> None:
        """End its run in good order."""
        try:
            if self._tracker is not None:
                self._tracker.finish()
        except Exception as error:  # noqa: BLE001 - as above
            log.warning("%s fails at the end: %s: %s", self._name, type(error).__name__, error)


def check_trackers(job: ResolvedJob) -> None:
    """Say what is missing for a job's trackers, before anything is loaded for them.

    Raises
    ------
    JobError
        A tracker is not installed, or lacks its key.
    """
    for name in _wanted(job):
        if not any(importlib.util.find_spec(package) for package in _PACKAGES[name]):
            raise JobError(
                "TrackerMissing",
                f"spec.tracking.{name}: {_PACKAGES[name][-1]} is not installed in this image: pip install"
                " '.[trackers]', or use an image that has it",
            )
    wandb = job.tracking.wandb
    if wandb and wandb.mode == "Online" and not os.environ.get("WANDB_API_KEY"):
        raise JobError(
            "TrackerMissing",
            "spec.tracking.wandb: WANDB_API_KEY is not set: put it into the Secret of spec.tracking.wandb.secretRef as"
            " this key, or for a local run into the environment",
        )


def _wanted(job: ResolvedJob) -> list[str]:
    tracking = job.tracking
    chosen = {"tensorBoard": tracking.tensor_board, "mlflow": tracking.mlflow, "wandb": tracking.wandb}
    return [name for name, value in chosen.items() if value]


def _open_tensorboard(job: ResolvedJob, step: int) -> Any:
    from accelerate.tracking import TensorBoardTracker

    # Files are named by the second: that of a quick restart, or of a way back, must not be overwritten.
    own = {"purge_step": step + 1, "filename_suffix": f".{time.time_ns()}"}
    tracker = TensorBoardTracker("tensorboard", logging_dir=job.output.path, **own)
    tracker.start()
    return tracker


def _open_mlflow(job: ResolvedJob, _step: int) -> Any:
    import mlflow
    from accelerate.tracking import MLflowTracker

    assert job.tracking.mlflow is not None
    mlflow.set_tracking_uri(job.tracking.mlflow.uri)
    run_id = _known_run(job, "mlflow")
    tracker = MLflowTracker(job.tracking.mlflow.experiment, run_id=run_id, run_name=job.name)
    tracker.start()
    if run_id is None:
        _keep_run(job, "mlflow", tracker.tracker.info.run_id)
        tracker.store_init_configuration(_recipe(job))
    return tracker


def _open_wandb(job: ResolvedJob, _step: int) -> Any:
    from accelerate.tracking import WandBTracker

    wandb = job.tracking.wandb
    assert wandb is not None
    run_id = _known_run(job, "wandb") or uuid.uuid4().hex
    _keep_run(job, "wandb", run_id)
    tracker = WandBTracker(
        wandb.project,
        entity=wandb.entity,
        name=job.name,
        id=run_id,
        resume="allow",
        mode=wandb.mode.lower(),
        dir=job.output.path,
    )
    tracker.start()
    tracker.store_init_configuration(_recipe(job))
    return tracker


_OPENERS: dict[str, Callable[[ResolvedJob, int], Any]] = {
    "tensorBoard": _open_tensorboard,
    "mlflow": _open_mlflow,
    "wandb": _open_wandb,
}


def _recipe(job: ResolvedJob) -> dict[str, str | int | float | bool]:
    """Return what was chosen for the job, by the path of each field."""

    def flat(value: Any, path: str) -> dict[str, Any]:
        if isinstance(value, dict):
            return {key: item for name, inner in value.items() for key, item in flat(inner, f"{path}.{name}").items()}
        return {path: value if isinstance(value, str | int | float | bool) else str(value)}

    parts = ("model", "task", "strategy", "adapter", "training")
    chosen = job.model_dump(mode="json", by_alias=True, include=set(parts), exclude_none=True)
    return {key: item for name, inner in chosen.items() for key, item in flat(inner, name).items()}


def _known_run(job: ResolvedJob, name: str) -> str | None:
    return (read_json(Path(job.output.path, RUNS_FILE)) or {}).get(name)


def _keep_run(job: ResolvedJob, name: str, run_id: str) -> None:
    file = Path(job.output.path, RUNS_FILE)
    write_atomically(file, json.dumps((read_json(file) or {}) | {name: run_id}))
