"""A run folder that is open: the right to write, whose it is, its checkpoints and its events. No model is needed for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from unfreeze_api.contracts.report import Rollback
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.data.pins import first_pins
from unfreeze_trainer.runs.checkpoints import Checkpoints, Identity
from unfreeze_trainer.runs.events import Events
from unfreeze_trainer.runs.generation import Generation
from unfreeze_trainer.runs.ownership import Owner, generation_of_worker, take_folder
from unfreeze_trainer.runs.recipe import Start, open_recipe
from unfreeze_trainer.runs.recovery import Found, find
from unfreeze_trainer.runs.rollbacks import discard_undone, read_rollbacks, write_rollbacks
from unfreeze_trainer.runs.saving import clear


class RunFolder:
    """The folder of a job's run, as one process has it.

    Parameters
    ----------
    job
        Its output names the folder.
    start
        What the folder said of the job.
    generation
        The right to write; None for one that only reads.
    pins
        Hashes of data and base model.
    """

    def __init__(self, job: ResolvedJob, start: Start, generation: Generation | None, pins: Mapping[str, Any]) -> None:
        self._job, self._start = job, start
        self.path = Path(job.output.path)
        self.generation = generation
        self.identity = Identity(start.fingerprint, pins, partial(first_pins, job, pins))
        self.checkpoints = Checkpoints(self.path, self.identity)
        self.events = Events(self.path, generation)

    @classmethod
    def open(
        cls, job: ResolvedJob, *, writes: bool, pins: Callable[[], Mapping[str, Any]], takes: bool = False
    ) -> RunFolder:
        """Open the folder of a job; the one that writes puts an end to whatever wrote there before.

        Parameters
        ----------
        job
            With the recipe that the run began with.
        writes
            Whether this process is the one.
        pins
            Returns hashes of data and base model. It is called once the right to write is taken, as it may take long.
        takes
            Whether the right to write is taken here: the folder lies below another one of this job's, whose agent has taken that.

        Raises
        ------
        JobError
            ForeignRunFolder: the folder is another job's, or another hand's.
        """
        start = open_recipe(job)
        owner = Owner.of(job, start.fingerprint)
        take = take_folder if takes else generation_of_worker
        generation = take(Path(job.output.path), owner) if writes else None
        return cls(job, start, generation, pins())

    def find(self) -> Found:
        """Find what there is to resume from; nothing for one that only reads, which is handed it.

        Raises
        ------
        JobError
            There are checkpoints, and none is this job's.
        """
        if self.generation is None:
            return Found()
        rollbacks = read_rollbacks(self.path, self.identity.fingerprint)
        discard_undone(self.checkpoints, rollbacks, self.generation)
        return replace(find(self.checkpoints, self.generation), rollbacks=rollbacks)

    def go_back(self, rollbacks: Sequence[Rollback]) -> None:
        """Write down that the run goes back once more, and delete the checkpoints that it leaves behind."""
        if self.generation:
            write_rollbacks(self.path, self.identity.fingerprint, rollbacks, self.generation)
            discard_undone(self.checkpoints, rollbacks, self.generation)

    def keep_recipe(self) -> None:
        """Write recipe.json unless it is there: from here on the folder is this run's."""
        if self.generation:
            self._start.store(self.generation)

    def require_own(self) -> None:
        """Raise JobError if something has come to lie there meanwhile that this run would write over."""
        open_recipe(self._job)

    def clear(self, *, best: int) -> list[int]:
        """Delete the checkpoints that a finished run no longer needs; return their steps.

        Parameters
        ----------
        best
            Step of the best evaluation.
        """
        if self.generation is None:
            return []
        return clear(self.checkpoints, self._start.after_success, best=best, generation=self.generation)
