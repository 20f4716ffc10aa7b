"""What the loop does between its computations: enter a phase, count a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.runs.course import Course
from unfreeze_trainer.training.hold import new_pull
from unfreeze_trainer.training.meter import StopRequested
from unfreeze_trainer.training.rollback import rate_scale

if TYPE_CHECKING:
    from unfreeze_trainer.features.cached import CachedTask
    from unfreeze_trainer.feed import Feed, MicroBatch
    from unfreeze_trainer.phases.compile import Phase
    from unfreeze_trainer.runs.state import RunState
    from unfreeze_trainer.training.hold import Hold
    from unfreeze_trainer.training.ladder import Ladder
    from unfreeze_trainer.training.meter import Meter
    from unfreeze_trainer.training.milestones import Milestones
    from unfreeze_trainer.training.plan import Plan
    from unfreeze_trainer.training.reporter import Reporter
    from unfreeze_trainer.training.rollback import Rollbacks
    from unfreeze_trainer.training.saver import Saver
    from unfreeze_trainer.training.solver import Solver
    from unfreeze_trainer.training.spending import Spending
    from unfreeze_trainer.training.trainable import Trainable

_BATCHES = 256
"""From which the share of padding is taken."""


class Work:
    """Takes a state through a plan.

    Parameters
    ----------
    plan, feed
        What is to be done, and the samples for it.
    state
        What is done; it is changed in place.
    features, trainable, milestones, meter, saver, reporter, rollbacks, ladder, hold, solver, spending
        Called on the way, on all ranks at the same places.
    """

    def __init__(
        self,
        plan: Plan,
        feed: Feed,
        state: RunState,
        *,
        features: CachedTask,
        trainable: Trainable,
        milestones: Milestones,
        meter: Meter,
        saver: Saver,
        reporter: Reporter,
        rollbacks: Rollbacks,
        ladder: Ladder,
        hold: Hold,
        solver: Solver,
        spending: Spending,
    ) -> None:
        self._plan, self._feed, self._state = plan, feed, state
        self._features, self._trainable, self._milestones = features, trainable, milestones
        self._meter, self._saver, self._reporter, self._rollbacks = meter, saver, reporter, rollbacks
        self._ladder, self._hold, self._solver, self._spending = ladder, hold, solver, spending

    def phases_left(self) -> Iterator[Phase]:
        """Yield the phases that are not over, but for those that have nothing to train; of Auto until a gate is shut."""
        left = self._plan.phases[self._state.phase_index + self._state.phase_ended :]
        for phase in left:
            state = self._state
            if state.beyond or not state.climbing or state.over:  # what is lost by now would not come back
                return
            if self._spending.ends_before_phase():
                if state.phase_steps and not state.phase_ended:  # a start that finds the budget spent meanwhile
                    self._trainable.begin(self._plan.phases[state.phase_index])
                    self._milestones.close()
                return
            if self._trainable.names([phase]):
                yield phase

    def enter(self, phase: Phase) -> None:
        """Have a phase train, make up for what a stop left undone. Collective."""
        state = self._state
        if phase.index != state.phase_index or state.phase_ended:
            state.begin_step = state.step
            self._ladder.begin(phase)
            state.phase_index, state.step, state.phase_ended = phase.index, phase.first_step, False
            state.phase_steps, state.phase_seconds, state.phase_best, state.bad_evaluations = 0, 0.0, None, 0
            state.course, state.pull = Course(), new_pull(phase)
        left = self._trainable.begin(phase)
        self._reporter.entered(phase, parameters=self._trainable.parameters, left=left)
        self._ladder.compare(phase, tell=self._tell)
        self._milestones.start_clock()
        self._features.enter(phase.index, self._reads(phase), beat=self._computed)
        self._reporter.tell("")
        if state.phase_steps:
            self._milestones.settle()  # an evaluation that a stop cut short
        elif self._rollbacks.wants_untrained:
            self._milestones.measure_untrained()
        elif self._spending.wants_evaluation:
            self._milestones.time_evaluation()
        if rounds := self._spending.rounds_to_time:
            self._milestones.time_saying(rounds)
        self._spending.begin()
        if start := self._plan.starts.get(phase.index):  # what is computed once has no padding
            stretch = 1 / (1 - self._feed.padding(_BATCHES))
            self._meter.passed(self._features.sample_seconds(stretch) / self._plan.share_below(start))
        self._meter.enter(self._plan.step_work(phase))
        self._meter.resume()

    def _reads(self, phase: Phase) -> dict[str, float]:
        """Return how often samples are read in a phase and those that share its cut, by split, as its first start did: a late one that computed them otherwise had other bits."""
        reads = self._plan.reads_of(phase.index)
        over = self._state.step >= phase.first_step + phase.steps  # its evaluation may be left
        last = self._plan.cut_of(phase.index) != self._plan.cut_of(phase.index + 1)
        return reads | {"train": 0.0} if over and last else reads

    def solve(self, phase: Phase) -> None:
        """Find the head of a phase whose solver is asked for it, unless that is done; evaluate and write a checkpoint. Collective.

        Raises
        ------
        StopRequested
            All ranks have agreed to stop here.
        JobError
            The model's head is none that can be solved.
        """
        if phase.solved and self._state.step == phase.first_step:
            self._solver.solve(phase, tell=self._tell)
            self._milestones.settle()

    def _tell(self, activity: str) -> None:
        self._reporter.tell(activity)
        self._reporter.publish("Training")
        self._meter.check_stop()
        self._spending.check()

    def _computed(self, done: int, samples: int) -> None:
        """Tell how many samples frozen blocks have computed. Collective."""
        self._tell(f"frozen blocks have computed {done:,} of {samples:,} samples, once for all epochs")

    def steps(self, phase: Phase) -> Iterator[tuple[int, Iterator[MicroBatch]]]:
        """Yield what is left of a phase, (step, micro batches), until its end or until it no longer improves."""
        if self._state.phase_ended:
            return
        for step, micro_batches in self._feed.steps(self._state.step, phase.first_step + phase.steps):
            yield step, micro_batches
            if self._state.phase_ended:
                return

    def rate_factor(self, step: int) -> float:
        """Return what every peak learning rate is multiplied by at a step."""
        factor = self._plan.rate_factor(step, self._state.phase_index)
        self._meter.rate_factor = factor = factor * rate_scale(self._state.rollbacks, self._state.phase_index)
        return factor

    def after_step(self, step: int) -> None:
        """Take note of a step that is done; evaluate and write a checkpoint when it is time. Collective.

        Raises
        ------
        StopRequested
            All ranks have agreed to stop here.
        JobError
            The guard has found something, or too many steps in a row were skipped.
        """
        state, meter = self._state, self._meter
        state.step = step + 1
        state.phase_steps += 1
        self._hold.after_step(state, self._plan.phases[state.phase_index], self._meter.rate_factor)
        try:
            self._trainable.after_step(look=meter.meets_next or self._milestones.due())
        except JobError as error:
            self._rollbacks.never_finite(error)
        met = meter.after_step(due=self._milestones.due())
        if met:
            self._saver.check()
            state.loss = meter.loss
            self._reporter.publish("Training")
            if not self._milestones.due():
                self._reporter.trained()
        over = met and self._ladder.ends_now(self._milestones.phase_seconds)
        if met and self._spending.ends_now(evaluates=self._milestones.evaluation_due()):
            over = True
        if over or self._milestones.due():
            meter.pause()
            if over:  # alone: a checkpoint of this step that did not know it would stay
                self._conclude()
            else:
                self._milestones.settle()
            self._spending.mark()
            meter.resume()

    def _conclude(self) -> None:
        """End the training at this step; a stop that cuts its evaluation short leaves the end to a later start. Collective."""
        try:
            self._milestones.conclude()
        except StopRequested:
            self._state.over = False
            raise
