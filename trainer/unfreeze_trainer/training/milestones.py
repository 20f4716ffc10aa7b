"""What is due at some steps only: an evaluation, with what it decides, the end of a phase, a checkpoint."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from unfreeze_api.contracts.progress import PhaseResult
from unfreeze_api.contracts.report import LOST
from unfreeze_trainer.judgement.phases import ended_early
from unfreeze_trainer.training.decide import History, decide
from unfreeze_trainer.training.meter import StopRequested

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.runs.state import RunState
    from unfreeze_trainer.training.decisions import Decisions
    from unfreeze_trainer.training.evaluator import Evaluator
    from unfreeze_trainer.training.forgetting import Forgetting
    from unfreeze_trainer.training.hold import Hold
    from unfreeze_trainer.training.ladder import Ladder
    from unfreeze_trainer.training.plan import Plan
    from unfreeze_trainer.training.predictions import Predictions
    from unfreeze_trainer.training.reporter import Reporter
    from unfreeze_trainer.training.rollback import Rollbacks
    from unfreeze_trainer.training.saver import Saver
    from unfreeze_trainer.training.saying import Saying
    from unfreeze_trainer.training.skipped import Skipped
    from unfreeze_trainer.training.spending import Spending
    from unfreeze_trainer.training.trainable import Trainable


class Milestones:
    """Evaluates, ends phases and saves, at the same steps on all ranks.

    Parameters
    ----------
    job
        Its metric, and when a phase ends early.
    plan
        Which steps these are.
    state
        Of the run; it is changed in place.
    decisions, engine, trainable, evaluator, predictions, saver, skipped, reporter, rollbacks, forgetting, saying, hold, ladder, spending
        Called on the way.
    """

    def __init__(
        self,
        job: ResolvedJob,
        plan: Plan,
        state: RunState,
        *,
        decisions: Decisions,
        engine: Engine,
        trainable: Trainable,
        evaluator: Evaluator,
        predictions: Predictions,
        saver: Saver,
        skipped: Skipped,
        reporter: Reporter,
        rollbacks: Rollbacks,
        forgetting: Forgetting,
        saying: Saying,
        hold: Hold,
        ladder: Ladder,
        spending: Spending,
    ) -> None:
        self._spending, self._saying = spending, saying
        self._metric, self._early_stopping = job.metric, job.training.early_stopping
        self._plan, self._state, self._decisions, self._engine = plan, state, decisions, engine
        self._trainable, self._evaluator, self._predictions = trainable, evaluator, predictions
        self._saver, self._skipped, self._reporter = saver, skipped, reporter
        self._rollbacks, self._forgetting, self._hold, self._ladder = rollbacks, forgetting, hold, ladder
        self._counted = time.perf_counter()
        self._before: tuple[float | None, int, int] | None = None

    def start_clock(self) -> None:
        """Count the time of the phase from now on."""
        self._counted = time.perf_counter()

    @property
    def phase_seconds(self) -> float:
        """Time that the present phase has taken so far."""
        self._count_time()
        return self._state.phase_seconds

    def due(self) -> bool:
        """Return whether there is something to do at this step."""
        return self.evaluation_due() or self._plan.saves_at(self._state.step)

    def evaluation_due(self) -> bool:
        """Return whether that is an evaluation."""
        return self._plan.evaluates_at(self._state.step, self._state.phase_index)

    def time_evaluation(self) -> None:
        """Take note of the time that an evaluation takes, before the first step. Collective."""
        self._reporter.publish("Evaluating")
        began = time.perf_counter()
        self._evaluator.measure("validation")
        self._state.evaluation_seconds = time.perf_counter() - began

    def time_saying(self, rounds: int) -> None:
        """Take note of the time that the model takes to say something of a sample, before the first step. Collective."""
        self._reporter.publish("Evaluating")
        began = time.perf_counter()
        self._saying.measure("validation", rounds=rounds)
        self._state.saying_seconds = (time.perf_counter() - began) / rounds

    def measure_untrained(self) -> None:
        """Take note of the metric of the model as it is before the first step. Collective."""
        self._reporter.publish("Evaluating")
        began = time.perf_counter()
        self._state.untrained = self._evaluator.measure("validation").metrics[self._metric.name]
        self._state.evaluation_seconds = time.perf_counter() - began

    def settle(self) -> None:
        """Evaluate and write a checkpoint, whichever is due at this step and not done yet. Collective."""
        state, improved = self._state, False
        if self.evaluation_due() and state.evaluated_step != state.step:
            improved = self._evaluate()
        if state.phase_ended:
            self._close_phase()
        if improved or state.phase_ended or self._plan.saves_at(state.step):
            self._rollbacks.note()  # here alone: where a stop saves is no part of the recipe
            self.save()
        self._reporter.publish("Training")

    def close(self) -> None:
        """End the phase as it is: it has been evaluated before. Collective."""
        self._state.phase_ended = True
        self._close_phase()

    def conclude(self) -> None:
        """End the training at this step: evaluate, unless that is done, and write a checkpoint. Collective."""
        if self._state.evaluated_step != self._state.step:
            self._evaluate(tries=False)  # it is over, whatever it promises
        self._state.phase_ended = True
        self._close_phase()
        self.save()

    def _evaluate(self, *, tries: bool = True) -> bool:
        """Evaluate, and do as that decides; return whether it is the best evaluation of the run."""
        state = self._state
        self._before = state.phase_best, state.bad_evaluations, state.evaluated_step
        self._reporter.publish("Evaluating")
        self._hold.before_evaluation(state, self._plan.phases[state.phase_index])
        began = time.perf_counter()
        measured = self._evaluator.measure("validation")
        state.metrics, state.usefulness = measured.metrics, measured.usefulness
        state.evaluation_seconds, state.evaluated_step = time.perf_counter() - began, state.step
        self._skipped.gather()
        self._rollbacks.judge()
        if self._forgetting.follows:
            self._look()
        best = state.best
        decision = decide(
            History(
                best.value if best else None, state.phase_best, state.bad_evaluations, best.beyond if best else 0.0
            ),
            self._metric,
            state.metrics[self._metric.name],
            stopping=self._plan.phases[state.phase_index].plateau or self._early_stopping,
            last=self._plan.ends_at(state.step, state.phase_index),
            beyond=state.beyond,
        )
        state.phase_best, state.bad_evaluations = decision.history.phase_best, decision.history.bad_evaluations
        state.phase_ended = decision.end
        if decision.best:
            state.take_best(self._metric.name)
            self._predictions.write("validation", measured.kept, state.step)
        self._reporter.evaluated(decision)
        if tries and not state.phase_ended and self._plan.tries_at(state.step, state.phase_index):
            state.phase_ended = not self._ladder.goes_on(self._plan.phases[state.phase_index])
        if decision.why and not state.beyond:
            phase = self._plan.phases[state.phase_index]
            self._decisions.add(
                ended_early(
                    phase.name,
                    step=state.step,
                    steps_left=phase.first_step + phase.steps - state.step,
                    metric=self._metric.name,
                    best=state.phase_best,
                    bad_evaluations=state.bad_evaluations,
                    why=decision.why,
                )
            )
        self._spending.evaluated(time.perf_counter() - began)
        return decision.best

    def _look(self) -> float | None:
        """Measure what is lost by now; return it where it is a number. Collective."""
        state, forgetting = self._state, self._forgetting
        found = forgetting.measure(state)
        if found is None:
            return None
        lost = found.first
        state.beyond = 0.0 if not forgetting.stops or found.within(forgetting.budget) else lost.value
        if forgetting.news():
            self._reporter.looked(lost.value, lost.low, lost.high)
        return lost.value if math.isfinite(lost.value) else None

    def _close_phase(self) -> None:
        state, lost = self._state, self._look()
        try:
            said = self._saying.measure("validation", lambda: self._reporter.publish("Evaluating"))
        except StopRequested:  # a later start evaluates again, and ends the phase as this would have
            state.phase_ended = False
            if self._before:
                state.phase_best, state.bad_evaluations, state.evaluated_step = self._before
            raise
        self._count_time()
        done = PhaseResult(
            name=self._plan.phases[state.phase_index].name,
            steps=state.phase_steps,
            seconds=state.phase_seconds,
            trainable_parameters=self._trainable.parameters,
            metrics=state.metrics | said | ({} if lost is None else {LOST: lost}),
        )
        state.phases = [*state.phases, done]
        self._ladder.closed(self._plan.phases[state.phase_index])

    def _count_time(self) -> None:
        now = time.perf_counter()
        self._state.phase_seconds += now - self._counted
        self._counted = now

    def save(self) -> None:
        """Begin to write a checkpoint of this step unless there is one. Collective."""
        self._count_time()
        if scale := self._engine.loss_scale:
            self._state.loss_scale = scale.state()
        self._saver.save(self._state, self._trainable.names(self._plan.phases[: self._state.phase_index + 1]))
