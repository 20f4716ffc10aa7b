"""The budget of a job: what is spent, what is kept for the end, and when the training is over because of it.

Rank 0 counts and all ranks get its answer, so that they end at one step. Time is that since the agent of pod 0 began, in each of its starts:
what a kill has lost counts too.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from unfreeze_api.contracts.decision import Decision
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.judgement.budgets import Reserve, decided, is_over, seconds_of, too_small
from unfreeze_trainer.link import STARTED_ENV
from unfreeze_trainer.runs.spent import read_spent, store_spent
from unfreeze_trainer.training.meter import SYNC_SECONDS
from unfreeze_trainer.training.saying import rounds_of

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.runs.folder import RunFolder
    from unfreeze_trainer.runs.state import RunState
    from unfreeze_trainer.tasks import Task
    from unfreeze_trainer.training.decisions import Decisions
    from unfreeze_trainer.training.plan import Plan
    from unfreeze_trainer.training.saver import Saver

log = logging.getLogger(__name__)

FRESH_SECONDS = 20.0
"""That a fresh process takes to load the libraries with which an export is tried, until that is measured."""
SLOWER = 2.0
"""Times what was measured of it: the machine may be busier at the end, and the model is read there too."""
BYTES_PER_SECOND = 100e6
"""At which files are written and read where nothing was measured yet: that of a slow network volume."""
_WRITE_SECONDS = 10.0
"""From one spent.json to the next: what a kill may leave uncounted."""
_MIXTURES = 5
"""That guard Interpolate evaluates at most."""
_TIMED = 2
"""Samples of each rank by which it is known how long a model takes to say something."""


class BudgetOver(Exception):  # noqa: N818 - no error
    """The budget is over before a phase could begin; what was trained before is taken."""


class FreshProcess:
    """Loads the libraries in a fresh process, beside what goes on, to know how long that takes on this machine."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        """None until it has."""
        threading.Thread(target=self._run, name="fresh process", daemon=True).start()

    def _run(self) -> None:
        began = time.perf_counter()
        command = [sys.executable, "-c", "import torch, transformers.models.auto"]
        done = subprocess.run(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            check=False,
        )
        if not done.returncode:
            self.seconds = time.perf_counter() - began


class Spending:
    """What a run has taken of its job's budget; without one it does nothing and costs nothing.

    Parameters
    ----------
    job, task, plan, state, engine, folder, saver, decisions
        Of the run, which has opened its folder.
    """

    def __init__(
        self,
        job: ResolvedJob,
        task: Task,
        plan: Plan,
        state: RunState,
        *,
        engine: Engine,
        folder: RunFolder,
        saver: Saver,
        decisions: Decisions,
    ) -> None:
        self._job, self._task, self._plan, self._state = job, task, plan, state
        self._engine, self._folder, self._saver, self._decisions = engine, folder, saver, decisions
        self._budget = budget = job.budget
        self._kept: Reserve | None = None
        self._before = self._evaluation = 0.0
        if budget is None:
            return
        self._limit, now = seconds_of(budget), time.time()
        self._earlier = read_spent(folder.path).at_least(state.trained_seconds, budget)
        # Workers that start again in a pod go on where those before were counted.
        began = max(float(os.environ.get(STARTED_ENV, now)), self._earlier.until)
        self._before_counting = max(0.0, now - began)
        self._began = self._written = time.perf_counter()
        self._met = self._here
        self._fresh = FreshProcess() if folder.generation else None
        self._write()

    @property
    def _here(self) -> float:
        """Seconds of this start."""
        return self._before_counting + time.perf_counter() - self._began

    @property
    def seconds(self) -> float:
        """What is spent, as seconds of the job as it runs now; on rank 0."""
        assert self._budget is not None
        return self._earlier.seconds_of(self._budget) + self._here

    @property
    def left_to_train(self) -> float | None:
        """Seconds that are left for steps and evaluations, without what is kept; None without a budget. On rank 0."""
        if self._budget is None:
            return None
        reserve = self._reserve()
        return self._limit - self.seconds - reserve.evaluation - reserve.after

    def left(self) -> float | None:
        """Return the seconds that are left; None without a budget. Collective where there is one."""
        if self._budget is None:
            return None
        return float(self._engine.broadcast_json(self._limit - self.seconds, float))

    @property
    def wants_evaluation(self) -> bool:
        """Whether an evaluation is to be made before the first step, since nobody knows yet how long one takes."""
        return self._budget is not None and not self._state.evaluation_seconds

    @property
    def rounds_to_time(self) -> int:
        """Samples that each rank is to ask about before the first step, since nobody knows yet how long that takes; 0 for none."""
        if self._budget is None or self._state.saying_seconds:
            return 0
        return min(_TIMED, self._rounds("validation"))

    def _rounds(self, split: str) -> int:
        return rounds_of(self._job, self._task, split, self._engine.world_size)

    def begin(self) -> None:
        """Take note that the steps of a phase begin. Collective.

        Raises
        ------
        JobError
            BudgetTooSmall: nothing is trained yet, and there is no room for a step and what follows.
        """
        if self._budget is None:
            return
        self._before = self._before or self._here
        self.mark()
        if self._trained or self._state.step:
            return
        if self._over(0.0, evaluates=True):
            self._refuse()

    def mark(self) -> None:
        """Take note that what comes next is steps."""
        if self._budget is not None:
            self._met = self._here

    def evaluated(self, seconds: float) -> None:
        """Take note of the time that an evaluation took with all that it decides."""
        self._evaluation = seconds
        if self._budget is not None:
            self._write_if_due()

    def ends_now(self, *, evaluates: bool) -> bool:
        """Return whether the training ends at this step, so that what follows has room. Collective where there is a budget.

        Parameters
        ----------
        evaluates
            Whether an evaluation is due at this step, so that another one would come before the end.
        """
        if self._budget is None:
            return False
        step = max(SYNC_SECONDS, self._here - self._met)  # until the ranks meet next
        self.mark()
        ahead = step + (self._reserve().evaluation if evaluates and self._engine.rank == 0 else 0.0)
        if not self._over(ahead, evaluates=True):
            self._write_if_due()
            return False
        self._end()
        return True

    def ends_before_phase(self) -> bool:
        """Return whether there is no room for more than what was trained. Collective where there is a budget."""
        if self._budget is None or not self._trained or not self._over(0.0, evaluates=True):
            return False
        self._end()
        return True

    def check(self) -> None:
        """Look at the time while something else than steps goes on. Collective where there is a budget.

        Raises
        ------
        BudgetOver
            It ends before the phase that was about to begin.
        JobError
            BudgetTooSmall: nothing is trained yet.
        """
        if self._budget is None:
            return
        self._write_if_due()
        if not self._over(0.0, evaluates=not self._trained):
            return
        if not self._trained and self._state.step:  # of an earlier start, never evaluated: it goes on until it is
            return
        if not self._trained:
            self._refuse()
        self._end()
        raise BudgetOver

    def close(self) -> None:
        """Say what the job has taken, once all but its report is done. Collective where there is a budget."""
        if self._budget is None:
            return
        self._write()
        self._say(last=True)

    def note(self) -> None:
        """Take note of what this start has taken so far: something long begins, or it ends."""
        if self._budget is not None:
            self._write()

    @property
    def _trained(self) -> bool:
        return self._state.best is not None or bool(self._state.rungs)

    def _over(self, ahead: float, *, evaluates: bool) -> bool:
        over = False
        if self._engine.rank == 0:
            reserve = self._reserve()
            kept = reserve.after + (reserve.evaluation if evaluates else 0.0)
            over = is_over(self.seconds, ahead, kept, self._limit)
        return self._engine.any_rank(over)

    def _end(self) -> None:
        self._state.over = self._state.step < self._plan.total_steps
        if self._state.over:
            self._kept = self._reserve()
            self._say(last=False)

    def _say(self, *, last: bool) -> None:
        assert self._budget is not None
        state, found = self._state, Decision(type="Budget", answer="", question="", message="", step=0)
        if self._engine.rank == 0:
            found = decided(
                self._budget,
                self.seconds,
                step=state.step,
                steps_left=self._plan.total_steps - state.step if state.over else 0,
                reserve=self._kept,
                before=self._before,
                phases=state.phases,
                last=last,
            )
        self._decisions.add(self._engine.broadcast_json(found, Decision))

    def _refuse(self) -> None:
        assert self._budget is not None
        text = too_small(self._budget, self.seconds, self._here, self._reserve()) if self._engine.rank == 0 else ""
        self._write()
        raise JobError("BudgetTooSmall", str(self._engine.broadcast_json(text, str)))

    def _reserve(self) -> Reserve:
        """Return what the end takes, by what was measured; what was not is bounded by sizes."""
        state, splits, evidence = self._state, self._task.splits, self._job.evidence
        evaluation = max(state.evaluation_seconds, self._evaluation)
        whole = 4.0 * sum(shape.numel() for shape in self._engine.shapes.values())
        written = self._saver.seconds or 3 * whole / BYTES_PER_SECOND  # with its moments
        fresh = self._fresh.seconds if self._fresh else None
        each = max(FRESH_SECONDS, SLOWER * (fresh or 0.0)) + 4 * whole / BYTES_PER_SECOND
        forgetting = evidence.forgetting if evidence else None
        look = 2 * state.gauge_seconds / (1 + len(state.phases)) if forgetting else 0.0  # the base's, and each phase's
        mixtures = _MIXTURES if forgetting and forgetting.guard == "Interpolate" else 0
        scratch = evidence.scratch if evidence else None
        return Reserve(
            evaluation=evaluation,
            checkpoint=written,
            test=evaluation * splits.get("test", 0) / max(1, splits["validation"]),
            export=each * len(self._job.output.export),
            guard=look + mixtures * (look + evaluation),
            saying=state.saying_seconds * (2 * self._rounds("validation") + self._rounds("test")),
            scratch=min(1.0, scratch.max_share) * state.trained_seconds if scratch else 0.0,
        )

    def _write_if_due(self) -> None:
        if time.perf_counter() - self._written > _WRITE_SECONDS:
            self._write()

    def _write(self) -> None:
        self._written = time.perf_counter()
        if generation := self._folder.generation:
            assert self._budget is not None
            store_spent(self._earlier.after(self._here, self._budget, time.time()), generation, self._folder.path)
