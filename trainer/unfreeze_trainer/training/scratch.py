"""The same architecture from random weights, trained beside a finished run: on the same data, by the same loop, in a folder below the run's.

Each of its trainings is a run of its own, so it stops, resumes and evaluates as any other, on any number of workers.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from unfreeze_api.contracts.decision import Decision
from unfreeze_api.contracts.resolved import ResolvedJob, ResolvedTracking
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.exports.figures import files
from unfreeze_trainer.judgement.said import Said, compare, compared_by
from unfreeze_trainer.judgement.worth import Comparison, Trained, against_scratch
from unfreeze_trainer.link import Link, tell
from unfreeze_trainer.training.classical import left_out
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.meter import StopRequested
from unfreeze_trainer.training.trials import out_of_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unfreeze_api.contracts.progress import Progress
    from unfreeze_trainer.training.run import Run

log = logging.getLogger(__name__)

FOLDER = "evidence"
"""Below the run folder."""
_STEPS, _SECONDS = "scratch-equal-steps", "scratch-equal-seconds"
_TOLD = {
    _STEPS: "training random weights to compare with, as many steps",
    _SECONDS: "training random weights to compare with, as many seconds",
}
_TRIES = 3
"""Starts of a training that may end without a checkpoint."""
_MEMORY = "all weights train there, which may take more memory than the job itself"
_ALIKE = 0.1
"""Times that differ by less count as equal."""
_BY_ALL = frozenset({"FrozenWeightsMoved", "LearningRateTooHigh", "NonFiniteGradients", "RanksDiffer", "SilentFreeze"})
"""Failures of a training that all ranks find at the same step, so that all of them go on without it."""
_OF_FOLDER = frozenset({"ForeignRunFolder", "OutputNotShared", "Superseded"})
"""Failures after which nothing more can be written for the run itself."""


class _Aside(Link):
    """The link of a training beside a finished run: that run's progress goes on, and time may be over."""

    def __init__(self, run: Run, name: str) -> None:
        self._run, self._link, self._name = run, run.link, name
        self.until = float("inf")
        """When its time is over, by time.monotonic()."""

    @property
    def real_stop(self) -> bool:
        """Whether this pod was asked to stop."""
        return self._link is not None and self._link.stop_requested()

    def stop_requested(self) -> bool:
        """Whether this pod was asked to stop, or the time is over."""
        return self.real_stop or time.monotonic() > self.until

    def write_progress(self, progress: Progress) -> None:
        """Say how far it is, beside the run's own progress."""
        tell(self._link, f"{self._name}: {progress.percent // 10 * 10} %")  # each text is a line of a log
        self._run.reporter.publish("Evaluating")

    def write_activity(self, text: str) -> None:
        """Say what goes on."""
        tell(self._link, f"{self._name}: {text}" if text else self._name)


def scratch_job(job: ResolvedJob, name: str, epochs: float) -> ResolvedJob:
    """Return the job that trains random weights: all of them, by the same recipe.

    There is nothing in lower blocks that smaller rates would keep, so there is no layer decay, and no adapter. Nor is there
    anything that rates could destroy: they are kept, whatever the losses do. Where a range test chooses them it does so anew, for
    all weights: what suits a head alone would ruin them.
    """
    rate = job.strategy.learning_rate.model_copy(update={"layer_decay": 1.0, "rewarm_steps": 0})
    path = f"{job.output.path}/{FOLDER}/{name}"
    return job.model_copy(
        update={
            "model": job.model.model_copy(update={"initialization": "Random", "quantization": None}),
            "adapter": None,
            "strategy": type(job.strategy)(type="FullFineTuning", learning_rate=rate),
            "training": job.training.model_copy(update={"epochs": epochs, "early_stopping": None}),
            "output": job.output.model_copy(update={"path": path, "source": f"{job.output.source}/{FOLDER}/{name}"}),
            "tracking": ResolvedTracking(),
            "evidence": None,
            "budget": None,
            "guard": None,
            "semantics": job.semantics.model_copy(update={"rates": "Kept"}),
        }
    )


def from_scratch(run: Run, max_share: float) -> tuple[Decision | None, list[Run]]:
    """Train random weights for as many steps as the run, and for as many seconds; return what transfer is worth, and the runs.

    A training that fails is said in a warning and left out: what was transferred is trained and exported. Where the first
    one fails there is no decision.

    Parameters
    ----------
    max_share
        Time for both, as a share of the time of the run's phases.

    Raises
    ------
    StopRequested
        All ranks have agreed to stop; a later start resumes.
    """
    seconds = _agreed(run, sum(phase.seconds for phase in run.state.phases))
    epochs = _epochs(run)
    begun: list[Run] = []
    first = _tried(run, begun, _STEPS, epochs, max_share * seconds)
    if first is None:
        return None, begun
    runs, took = [first], _seconds(run, first)
    rate = took / max(1, first.state.step)  # its time may have been over before its steps
    stretch = seconds / max(rate * first.plan.total_steps, 1e-9)
    if abs(stretch - 1) > _ALIKE and took < max_share * seconds and first.state.step == first.plan.total_steps:
        longer = _tried(run, begun, _SECONDS, epochs * stretch, max_share * seconds - took)
        runs += [longer] if longer else []
    decision = _judge(run, runs, seconds) if run.engine.rank == 0 else None
    return run.engine.broadcast_json(decision, Decision | None), begun


def _epochs(run: Run) -> float:
    """Return how many passes over the data the run's steps are; training.epochs at least where one of them stands for a solver."""
    return run.job.training.epochs if _solved(run) else _taken(run)


def _taken(run: Run) -> float:
    return sum(phase.steps for phase in run.state.phases) / run.plan.steps_per_epoch


def _solved(run: Run) -> bool:
    """Return whether the run's own steps say too little, since a solver took their place: rungs above it may have taken more of them."""
    return any(phase.solved for phase in run.plan.phases) and _taken(run) < run.job.training.epochs


def _agreed(run: Run, value: float) -> float:
    return float(run.engine.broadcast_json(value, float))


def _seconds(run: Run, other: Run) -> float:
    return _agreed(run, sum(phase.seconds for phase in other.state.phases) or other.state.phase_seconds)


def _tried(run: Run, begun: list[Run], name: str, epochs: float, seconds: float) -> Run | None:
    """Return what `_train` does; None, and a warning, where that fails on all ranks alike, or has ended workers often. Collective."""
    what = f"spec.evidence.scratch: the training {FOLDER}/{name} of random weights failed, and is left out"
    if _died(run, name):
        left_out(
            run.folder,
            what,
            RuntimeError(f"it ended the workers {_TRIES} times before its first checkpoint: {_MEMORY}"),
        )
        return None
    try:
        return _train(run, begun, name, epochs, seconds)
    except StopRequested:
        run.folder.events.add("scratch", name=name, stopped=True)
        raise
    except Exception as error:
        reason = error.reason if isinstance(error, JobError) else ""
        alone = run.engine.world_size == 1 and reason not in _OF_FOLDER and not isinstance(error, OSError)
        if not alone and reason not in _BY_ALL:
            if out_of_memory(error):  # not the job's own, which is over: another start leaves this out
                raise RuntimeError(f"{name} of spec.evidence.scratch: {_MEMORY}") from error
            raise
        log.exception("%s", name)
        run.engine.end()
        left_out(run.folder, what, error)
        return None


def _died(run: Run, name: str) -> bool:
    """Return whether a training has ended its workers often enough: what was trained is worth more than what it is compared with. Collective."""
    found = False
    if run.engine.rank == 0:
        lines = [line for line in run.folder.events.read("scratch") if line.get("name") == name]
        died = sum(-1 if line.get("stopped") else 1 for line in lines)  # a stop, as for a suspend, is no death
        # A stop before the first step leaves step-0, which nothing goes on from.
        found = died >= _TRIES and not [*(run.folder.path / FOLDER / name / "checkpoints").glob("step-[1-9]*")]
    return run.engine.any_rank(found)


def _train(run: Run, begun: list[Run], name: str, epochs: float, seconds: float) -> Run:
    """Train random weights until its epochs or its seconds are over; it has been evaluated then. Collective.

    `begun` takes the run, however it ends.
    """
    from unfreeze_trainer.tasks import open_task
    from unfreeze_trainer.training.run import Run

    if run.folder.generation:
        run.folder.generation.check()  # one that is superseded takes nothing below its folder
        run.folder.require_own()  # nor is a link followed that has come to lie there
        run.folder.events.add("scratch", name=name)
    run.engine.module.to("cpu")  # what was trained is exported: its place is the other's
    job, aside = scratch_job(run.asked, name, epochs), _Aside(run, _TOLD[name])
    aside.write_activity("reading the data")
    task = open_task(job)
    task.pins = dict(run.folder.identity.pins)
    other = Run(job, task, task.build_model(), run.engine, aside, takes_folder=True)
    begun.append(other)
    aside.until = time.monotonic() + seconds - _seconds(run, other)
    if (left := run.spending.left()) is not None:
        aside.until = min(aside.until, time.monotonic() + left)
    with _closing(other):
        try:
            train(other)
        except StopRequested:
            if run.engine.any_rank(aside.real_stop):
                other.milestones.save()
                other.saver.wait()
                raise
            aside.until = float("inf")
            other.milestones.conclude()
    run.engine.end()
    return other


@contextmanager
def _closing(other: Run) -> Iterator[None]:
    try:
        yield
    finally:
        other.saver.close()


def _judge(run: Run, runs: list[Run], seconds: float) -> Decision | None:
    """Compare what the run has predicted with what each of the others has, on rank 0; None, and a warning, where that fails."""
    try:
        return _compared(run, runs, seconds)
    except Exception as error:
        log.exception("evidence.scratch")
        left_out(run.folder, "spec.evidence.scratch could not be computed", error)
        return None


def _compared(run: Run, runs: list[Run], seconds: float) -> Decision:
    of_run, metric = _said(run), compared_by(_said(run).kind, run.job.metric.name)
    trained = [
        Trained(
            compare(of_run, _said(other), metric),
            steps=other.state.step,
            planned=other.plan.total_steps,
            seconds=sum(phase.seconds for phase in other.state.phases),
        )
        for other in runs
    ]
    worst = min(trained, key=lambda one: one.difference.gain)
    took = sum(one.seconds for one in trained)
    found = Comparison(worst.difference, metric, run.state.step, took)
    return against_scratch(found, trained, seconds=seconds, samples=run.task.splits["train"], solved=_solved(run))


def _said(run: Run) -> Said:
    found = files(run.folder.path).get("validation")
    if found is None:
        raise RuntimeError(
            f"{run.folder.path.name} has no predictions of the validation data: its metric was never a number"
        )
    return Said.read(*found)
