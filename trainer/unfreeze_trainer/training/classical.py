"""A classical model beside a run: what it says of the validation rows, in a file that outlives a start, and compared with what models say."""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from zipfile import BadZipFile

import numpy as np

from unfreeze_api.tasks import task_type
from unfreeze_trainer.errors import JobError, told_of
from unfreeze_trainer.judgement.rungs import Yardstick
from unfreeze_trainer.judgement.said import Said, compare, compared_by
from unfreeze_trainer.training.beside import on_first
from unfreeze_trainer.training.predictions import fits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.judgement.paired import Difference
    from unfreeze_trainer.runs.folder import RunFolder
    from unfreeze_trainer.tasks import Task

log = logging.getLogger(__name__)

FILE = "rungs/classical.npz"
"""Below the run folder."""
USUAL_SAMPLES = 5000
"""Training samples that it is fitted on at most below the rungs of Auto, where nobody says a number."""
_SAID = 500
"""Characters of an error in a warning."""


@dataclass(frozen=True, eq=False)
class Classical:
    """What a classical model says of the validation rows."""

    name: str
    fitted_on: int
    """Training samples."""
    seconds: float
    """What fitting and asking it took."""
    said: Said

    @classmethod
    def of(cls, job: ResolvedJob, task: Task, max_samples: int, *, unread: Mapping[str, set[int]]) -> Self:
        """Fit one on training samples, and ask it about the validation samples.

        Parameters
        ----------
        job, task
            A task that has a classical model and answers.
        max_samples
            That it is fitted on at most, drawn by training.seed.
        unread
            Samples of each split that are known not to be readable.
        """
        from unfreeze_trainer.judgement.classical import fit

        began = time.perf_counter()
        answers, reads = task.answers, task_type(job.task.type).classical
        assert answers is not None
        assert reads
        train, validation = (_readable(job, task, split, unread.get(split, set())) for split in ("train", "validation"))
        rows = np.random.default_rng(job.training.seed).permutation(train)[:max_samples]
        inputs, targets = task.raw("train", rows)
        pairs = job.data.train.columns.text_pair is not None
        seed, width = job.training.seed, answers.width
        metric = compared_by(answers.kind, job.metric.name)
        model = fit(answers.kind, reads, inputs, targets, outputs=width, pairs=pairs, seed=seed, metric=metric)
        inputs, targets = task.raw("validation", validation)
        said = Said.of(answers.kind, list(answers.names), targets, model.predict(inputs))
        return cls(model.name, len(rows), time.perf_counter() - began, said)

    @classmethod
    def read(cls, folder: RunFolder) -> Self | None:
        """Return what a run folder has; None where there is nothing that can be read, or it is of another recipe or other data."""
        try:
            with np.load(folder.path / FILE, allow_pickle=False) as found:
                about = json.loads(str(found["about"]))
                said = Said(about["kind"], about["names"], found["actual"], found["predicted"])
            found_on = about.get("foundOn")
            return (
                cls(about["name"], about["fittedOn"], about["seconds"], said)
                if found_on == folder.identity.seen("data")
                else None
            )
        except FileNotFoundError:
            return None
        except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile, zlib.error):
            log.warning("%s cannot be read: the classical model is fitted again", folder.path / FILE, exc_info=True)
            return None

    def write(self, folder: RunFolder) -> None:
        """Write it into a run folder, whole or not at all."""
        generation, said = folder.generation, self.said
        assert generation is not None
        about = {"name": self.name, "fittedOn": self.fitted_on, "seconds": round(self.seconds, 3)}
        about |= {"kind": said.kind, "names": said.names, "foundOn": folder.identity.seen("data")}
        aside = generation.aside("classical.npz")
        np.savez_compressed(aside, about=json.dumps(about), actual=said.actual, predicted=said.predicted)
        generation.commit(aside, folder.path / FILE)

    def compared(self, model: Said, metric: str) -> Difference:
        """Return by how much a model is better on the same rows; `metric` of `compared_by`. ValueError where it knows others."""
        if not np.array_equal(model.actual, self.said.actual):
            raise ValueError("a classical model and the run have read other validation rows")
        return compare(model, self.said, metric)


def left_out(folder: RunFolder, what: str, error: Exception) -> None:
    """Warn of a comparison that has failed, on the rank that may write; rows of the data are not quoted."""
    folder.events.add("warning", message=f"{what}: {' '.join(told_of(error)[0].split())[:_SAID]}")


def _readable(job: ResolvedJob, task: Task, split: str, unread: set[int]) -> np.ndarray:
    """Return the samples of a split without those that cannot be read, where the job skips these."""
    samples = np.setdiff1d(np.arange(task.splits[split]), sorted(unread))
    if job.data.on_error != "Skip":
        return samples
    return np.array([sample for sample in samples if _reads(task, split, sample)], dtype=np.int64)


def _reads(task: Task, split: str, sample: int) -> bool:
    try:
        [*task.raw(split, np.array([sample]))[0]]
    except JobError:
        return False
    return True


class BelowRungs:
    """The classical model that stands below the rungs of Auto; of tasks that have none it does nothing.

    Parameters
    ----------
    job, task, engine, folder
        Of the run.
    """

    def __init__(self, job: ResolvedJob, task: Task, engine: Engine, folder: RunFolder) -> None:
        self._job, self._task, self._engine, self._folder = job, task, engine, folder
        known = task_type(job.task.type).classical and task.answers is not None
        self._wanted = bool(known) and fits(task, "validation")
        self._classical: Classical | None = None

    def fit(self, look: Callable[[], None]) -> None:
        """Fit it, unless the run has done so. Collective.

        Parameters
        ----------
        look
            Is called on all ranks meanwhile; may raise, on every rank.
        """
        if not self._wanted:
            return
        engine = self._engine
        if engine.rank == 0:
            self._classical = Classical.read(self._folder)
        if engine.any_rank(engine.rank == 0 and self._classical is None):
            done = on_first(engine, "classical", self._fitted, look)
            if engine.rank == 0:
                try:
                    self._classical = done.result()
                    self._classical.write(self._folder)
                except Exception as error:
                    log.exception("classical model below the rungs")
                    left_out(self._folder, "strategy Auto has no classical model to compare with", error)
        self._wanted = False

    def _fitted(self) -> Classical:
        baseline = self._job.evidence.baseline if self._job.evidence else None
        most = baseline.max_samples if baseline else USUAL_SAMPLES
        return Classical.of(self._job, self._task, most, unread=self._task.unread)

    def beside(self, rungs: Sequence[Said | None]) -> Yardstick | None:
        """Return it beside rungs, on rank 0; None where there is none, or it is not known what a rung says of the same rows."""
        if not rungs or any(said is None for said in rungs):
            return None
        self._classical = classical = self._classical or Classical.read(self._folder)
        if classical is None:
            return None
        metric = compared_by(classical.said.kind, self._job.metric.name)
        try:
            found = [classical.compared(said, metric) for said in rungs if said is not None]
        except ValueError:
            log.warning("the classical model below the rungs has read other validation rows, and is not compared")
            return None
        gains, better = [one.gain for one in found], [one.better for one in found]
        return Yardstick(classical.name, metric, found[0].other, gains, better, classical.seconds)
