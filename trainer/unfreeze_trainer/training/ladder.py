"""Auto: rungs that are phases one after the other. Each begins with the best weights before it, and a gate stands before it.

What is decided is pure (`judgement/rungs.py`); rank 0 reads what each rung says of the validation rows, all ranks get the answer.
The gate's answer lies in the checkpoint that the rung ends with, so that a start after a kill goes the same way.
"""

from __future__ import annotations

import logging
import math
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_api.contracts.decision import Decision
from unfreeze_api.spec.strategy import AutoSpec
from unfreeze_api.tasks import task_type
from unfreeze_trainer.engines.base import persistent_buffers
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.exports.figures import files
from unfreeze_trainer.exports.predictions import about
from unfreeze_trainer.judgement.rungs import (
    Climbed,
    Next,
    Wanted,
    best_of,
    choose,
    gate,
    margin_of,
    top_of,
    within_values,
)
from unfreeze_trainer.judgement.said import Said, compared_by, spread, within
from unfreeze_trainer.judgement.trials import Trial, judge
from unfreeze_trainer.runs.checkpoints import BrokenCheckpointError
from unfreeze_trainer.runs.state import Rung
from unfreeze_trainer.training.classical import BelowRungs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.features.cached import CachedTask
    from unfreeze_trainer.models.hook import StepHook
    from unfreeze_trainer.phases.compile import Phase
    from unfreeze_trainer.runs.folder import RunFolder
    from unfreeze_trainer.runs.state import RunState
    from unfreeze_trainer.training.decisions import Decisions
    from unfreeze_trainer.training.meter import Meter
    from unfreeze_trainer.training.plan import Plan
    from unfreeze_trainer.training.saver import Saver
    from unfreeze_trainer.training.spending import Spending
    from unfreeze_trainer.training.trainable import Trainable

log = logging.getLogger(__name__)

FOLDER = "rungs"
"""Below the run folder: what the best weights of each rung say of the validation rows."""


class Ladder:
    """Takes a run from rung to rung; of a strategy without rungs it does nothing.

    Parameters
    ----------
    job, task, plan, state, engine, hook, trainable, saver, folder, meter, decisions, spending
        Of the run.
    """

    def __init__(
        self,
        job: ResolvedJob,
        task: CachedTask,
        plan: Plan,
        state: RunState,
        *,
        engine: Engine,
        hook: StepHook,
        trainable: Trainable,
        saver: Saver,
        folder: RunFolder,
        meter: Meter,
        decisions: Decisions,
        spending: Spending,
    ) -> None:
        self._spending = spending
        self._task, self._plan, self._state = task, plan, state
        self._one_answer = task_type(job.task.type).one_answer
        self._engine, self._hook, self._trainable = engine, hook, trainable
        self._saver, self._folder, self._meter, self._decisions = saver, folder, meter, decisions
        self._below = BelowRungs(job, task, engine, folder)  # type: ignore[arg-type]
        options = job.strategy.of(AutoSpec) or AutoSpec()
        self._asked = Wanted(
            job.metric,
            options.target,
            options.min_gain,
            float(options.budget.seconds) if options.budget else None,
            task.splits["validation"],
        )

    @property
    def _wanted(self) -> Wanted:
        """What the job asks for; a sample that cannot be read is none that a value is measured on."""
        unread = len(self._state.unread.get("validation", ()))
        return replace(self._asked, rows=(self._asked.rows or 0) - unread) if unread else self._asked

    def compare(self, phase: Phase, *, tell: Callable[[str], None]) -> None:
        """Fit the classical model that rungs are compared with, before the first of them. Collective.

        Parameters
        ----------
        phase
            That begins.
        tell
            Called now and then with what goes on; may raise, on every rank.
        """
        if phase.rung:
            self._below.fit(lambda: tell("fitting a classical model to compare the rungs with"))

    def ends_now(self, seconds: float) -> bool:
        """Return whether the rungs' time is over when the present one has taken so many seconds. Collective where they have one."""
        if self._wanted.seconds is None:
            return False
        spent = sum(rung.seconds for rung in self._state.rungs) + seconds
        return self._engine.any_rank(self._engine.rank == 0 and spent > self._wanted.seconds)

    def begin(self, phase: Phase) -> None:
        """Put the best weights of the rungs so far in the place of those at hand, where a rung begins. Collective.

        A solved head is no start: it has learned the training samples by heart, and leaves the blocks below it no gradient to learn by. After it a
        rung begins with the base.
        """
        state = self._state
        if not phase.rung or not state.rungs:
            return
        rungs = self._starts
        state.best = None
        self._saver.wait()
        weights: dict[str, Tensor] = {}
        if rungs:
            best = self._best(rungs).best
            if not self._whole([best.step])[0]:
                log.warning("the rung begins with the newest weights: the checkpoint of step %d is lost", best.step)
                return
            weights = self._folder.checkpoints.load_weights(best.step)
        if later := self._trainable.names(self._plan.phases[: phase.index]) - weights.keys():
            base = self._task.build_model().module
            weights |= {name: parameter.detach() for name, parameter in base.named_parameters() if name in later}
            weights |= {} if rungs else persistent_buffers(base)
        self._engine.skips()
        self._engine.end()
        self._engine.load_weights(weights)
        self._trainable.resume(self._hook.load_state({}))

    def goes_on(self, phase: Phase) -> bool:
        """Return whether a rung, of which the first steps were evaluated, is worth the others. Collective."""
        decision = self._engine.broadcast_json(self._trial(phase) if self._engine.rank == 0 else _NOTHING, Decision)
        if decision.answer:
            self._decisions.add(decision)
        return decision.answer != "No"

    def closed(self, phase: Phase) -> None:
        """Take note of a rung that is over, and decide whether another one follows. Collective."""
        state = self._state
        if not phase.rung or state.best is None:
            return
        state.rungs = [
            *state.rungs,
            Rung(phase_index=phase.index, best=state.best, steps=state.phase_steps, seconds=state.phase_seconds),
        ]
        found = _NOTHING
        if self._engine.rank == 0:
            self._keep(state.rungs[-1])
            if not state.beyond and not state.over:  # what is lost by now would not come back: there is nothing to ask
                found = self._gate() or _NOTHING
        decision = self._engine.broadcast_json(found, Decision)
        state.climbing = decision.answer == "Yes"
        if decision.answer:
            self._decisions.add(decision)

    def choose(self) -> None:
        """Take the weights of the rung that is chosen for the best ones, once all are over. Collective."""
        state = self._state
        if not state.rungs:
            return
        whole = self._whole([rung.best.step for rung in state.rungs])
        there = [rung for rung, one in zip(state.rungs, whole, strict=True) if one]
        if not there:  # the newest evaluation is the best one then, as it is without rungs
            return
        rungs = [rung for rung in there if not rung.best.beyond] or there
        found: tuple[int, Decision] = (0, _NOTHING)
        if self._engine.rank == 0:
            found = self._choice(rungs, beyond=[rung for rung in there if rung not in rungs])
        place, decision = self._engine.broadcast_json(found, tuple[int, Decision])
        state.best = rungs[place].best
        self._decisions.add(decision)

    @property
    def _starts(self) -> list[Rung]:
        """Rungs whose weights another one may begin with: of those that came to no number the base is better."""
        rungs = [rung for rung in self._state.rungs if not self._plan.phases[rung.phase_index].solved]
        return [rung for rung in rungs if not math.isnan(rung.best.value)]

    def _best(self, rungs: Sequence[Rung]) -> Rung:
        values, losses = zip(*((rung.best.value, rung.best.metrics.get("loss")) for rung in rungs), strict=True)
        return rungs[best_of(values, self._wanted.metric, losses)]

    def _whole(self, steps: Sequence[int]) -> list[bool]:
        found = [self._is_whole(step) for step in steps] if self._engine.rank == 0 else []
        return self._engine.broadcast_json(found, list[bool])

    def _is_whole(self, step: int) -> bool:
        try:
            self._folder.checkpoints.check(step)
        except (BrokenCheckpointError, JobError) as error:
            log.warning("no way back to step %d: %s", step, error)
            return False
        return True

    def _trial(self, phase: Phase) -> Decision:
        state, rungs = self._state, self._state.rungs
        if (
            not self._starts or state.best is None or state.beyond
        ):  # of one that began with the base a tenth says nothing
            return _NOTHING
        before = self._best(rungs)
        tried = Rung(phase_index=phase.index, best=state.best, steps=state.phase_steps, seconds=state.phase_seconds)
        found = files(self._folder.path).get("validation")
        reads = self._read(before), self._read_at(found[0], tried) if found else None
        first, second = (self._comparable(said) for said in reads)
        best = self._climbed(before, first)
        margin = margin_of(best, self._wanted)
        classical = self._below.beside(reads)
        useless = not any(one.best.usefulness is None or one.best.usefulness.better for one in (before, tried))
        return judge(
            best,
            Trial(phase.rung, tried.best.value, tried.steps, phase.steps, state.metrics.get("loss")),
            self._wanted,
            idle=self._within(before, tried, margin, (first, second)),
            loss=before.best.metrics.get("loss"),
            margin=margin,
            behind=useless or (classical is not None and classical.ahead),
            step=state.step,
        )

    def _path(self, rung: Rung) -> Path:
        return self._folder.path / FOLDER / f"{rung.phase_index}.parquet"

    def _keep(self, rung: Rung) -> None:
        """Keep what the best weights of a rung say of the validation rows: the next rung writes over it."""
        found, generation = files(self._folder.path).get("validation"), self._folder.generation
        if generation and found and found[1].step == rung.best.step:
            aside = generation.aside(f"rung-{rung.phase_index}.parquet")
            shutil.copyfile(found[0], aside)
            generation.commit(aside, self._path(rung))

    def _read(self, rung: Rung) -> Said | None:
        """Return what a rung says of the rows; None where nobody has written it down."""
        return self._read_at(self._path(rung), rung)

    def _read_at(self, path: Path, rung: Rung) -> Said | None:
        found = about(path) if self._one_answer else None
        if found is None or found.step != rung.best.step:
            return None
        try:
            return Said.read(path, found)
        except (OSError, ValueError):
            log.warning("%s cannot be read: rungs are compared by their values alone", path, exc_info=True)
            return None

    def _said(self, rung: Rung) -> Said | None:
        """Return what a rung says of the rows; None where nobody has written it down, or the metric needs more than that."""
        return self._comparable(self._read(rung))

    def _comparable(self, said: Said | None) -> Said | None:
        if said is None:
            return None
        metric, known = self._wanted.metric, len(said.actual) and said.rates(np.ones(len(said.actual)))
        instead = compared_by(said.kind, metric.name)
        if instead != metric.name and metric.better == "Lower":  # another unit, so that a margin says nothing of it
            return None
        return said if known and instead in known else None

    def _climbed(self, rung: Rung, said: Said | None) -> Climbed:
        name, worth = self._plan.phases[rung.phase_index].rung, rung.best.usefulness
        useful, majority = (worth.better, None if worth.compared else worth.majority) if worth else (None, None)
        best, loss = rung.best, rung.best.metrics.get("loss")
        plain = Climbed(name, best.value, rung.steps, rung.seconds, useful=useful, majority=majority, loss=loss)
        metric = self._wanted.metric.name
        if said is None or compared_by(said.kind, metric) != metric:
            return replace(plain, by_rows=said is not None, instead=compared_by(said.kind, metric) if said else "")
        error, low, high = spread(said, metric)
        return replace(plain, error=error, low=low, high=high)

    def _within(self, one: Rung, other: Rung, margin: float, said: Sequence[Said | None]) -> float:
        (first, second), metric = said, self._wanted.metric
        by_values = within_values(one.best.value, other.best.value, margin, metric)
        if first is None or second is None or not np.array_equal(first.actual, second.actual):
            return by_values
        instead = compared_by(first.kind, metric.name)
        by_rows = within(first, second, instead, margin)
        # What is alike by another metric may not be by the one that is asked for.
        return by_rows if instead == metric.name else min(by_rows, by_values)

    def _gate(self) -> Decision | None:
        """Return whether another rung follows; None after the last."""
        state, phases, rungs = self._state, self._plan.phases, self._state.rungs
        place = rungs[-1].phase_index + 1
        if place == len(phases):
            return None
        said = [self._said(rung) for rung in rungs]
        climbed = [self._climbed(*pair) for pair in zip(rungs, said, strict=True)]
        following = Next(phases[place].rung, self._seconds_of(phases[place]))
        idle = None
        if before := rungs[:-1]:
            top = before.index(self._best(before))
            best = climbed[top_of(climbed, self._wanted.metric)]
            margin = margin_of(best, self._wanted)
            idle = self._within(before[top], rungs[-1], margin, (said[top], said[-1]))
        classical = self._below.beside([self._read(rung) for rung in rungs])
        return gate(climbed, following, self._within_budget(), idle=idle, step=state.step, classical=classical)

    def _within_budget(self) -> Wanted:
        """Return what is wanted in the time that both budgets leave to the rungs; on rank 0."""
        left = self._spending.left_to_train
        if left is None:
            return self._wanted
        most = sum(rung.seconds for rung in self._state.rungs) + max(0.0, left)
        return replace(self._wanted, seconds=min(most, self._wanted.seconds or most))

    def _seconds_of(self, phase: Phase) -> float:
        """Return about how long a rung takes: a pass through blocks was measured, or steps of other rungs."""
        whole = self._meter.pass_seconds
        if not whole and self._plan.phases[0].solved:  # nothing was cached: the solver has read each sample once
            whole = self._state.rungs[0].seconds / self._plan.samples
        unit = max(whole, self._meter.work_seconds or 0.0)
        return self._plan.seconds_of(phase, work_seconds=unit, evaluation_seconds=self._state.evaluation_seconds)

    def _choice(self, rungs: Sequence[Rung], beyond: Sequence[Rung]) -> tuple[int, Decision]:
        said = [self._said(rung) for rung in rungs]
        climbed = [self._climbed(*pair) for pair in zip(rungs, said, strict=True)]
        top = top_of(climbed, self._wanted.metric)
        margin = margin_of(climbed[top], self._wanted)
        probable = [
            self._within(rung, rungs[top], margin, (own, said[top])) for rung, own in zip(rungs, said, strict=True)
        ]
        above = self._plan.phases[self._state.rungs[-1].phase_index + 1 :]
        given_up = [phase.rung for phase in above if phase.index == self._state.given_up]
        untried = [phase.rung for phase in above if phase.index != self._state.given_up]
        names = [self._plan.phases[rung.phase_index].rung for rung in beyond]
        classical = self._below.beside([self._read(rung) for rung in rungs])
        return choose(
            climbed,
            probable,
            self._wanted,
            step=self._state.step,
            untried=untried,
            given_up=given_up,
            beyond=names,
            classical=classical,
        )


_NOTHING = Decision(type="Strategy", answer="", question="", message="", step=0)
