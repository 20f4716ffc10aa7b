"""What others see of a training: its progress, its events, its metrics. Nothing here changes what is trained."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from unfreeze_api.contracts import budget
from unfreeze_api.contracts.progress import Progress
from unfreeze_trainer.exports.outcome import in_json
from unfreeze_trainer.link import tell

if TYPE_CHECKING:
    from unfreeze_api.contracts.report import Rollback
    from unfreeze_trainer.features.cached import Saved
    from unfreeze_trainer.judgement.phases import Evaluated
    from unfreeze_trainer.link import Link
    from unfreeze_trainer.phases.compile import Phase
    from unfreeze_trainer.runs.events import Events
    from unfreeze_trainer.runs.state import RunState
    from unfreeze_trainer.training.decide import Decision
    from unfreeze_trainer.training.history import CurveFile
    from unfreeze_trainer.training.meter import Meter
    from unfreeze_trainer.training.plan import Plan
    from unfreeze_trainer.training.saver import Saver
    from unfreeze_trainer.training.skipped import Skipped
    from unfreeze_trainer.training.spending import Spending
    from unfreeze_trainer.training.tracking import Tracking

log = logging.getLogger(__name__)

Observer = Callable[[Progress], None]
"""Is shown each progress, on the first worker of each pod; nothing waits for what it makes of it."""


class Reporter:
    """Tells how far a training is.

    Parameters
    ----------
    plan, state, meter, saver, skipped, spending, saved
        Where the figures come from.
    events, history, tracking, link
        Notified of what happens: the run folder, the trackers, this pod's agent (None without one).
    world_size
        Workers of the run.
    observers
        Shown each progress.
    """

    def __init__(
        self,
        plan: Plan,
        state: RunState,
        meter: Meter,
        saver: Saver,
        skipped: Skipped,
        *,
        spending: Spending,
        saved: Saved,
        events: Events,
        history: CurveFile,
        tracking: Tracking,
        link: Link | None,
        world_size: int,
        observers: Sequence[Observer],
    ) -> None:
        self._plan, self._state, self._meter, self._saver, self._skipped = plan, state, meter, saver, skipped
        self._events, self._tracking, self._link, self._world_size = events, tracking, link, world_size
        self._history, self._saved, self._spending = history, saved, spending
        self.observers = list(observers)
        self.results: dict[str, float] = {}
        """Of a run that is done, by names like `test.accuracy`."""

    def tell(self, activity: str) -> None:
        """Say what goes on beside training, for people; nothing while it trains."""
        tell(self._link, activity)

    def publish(self, activity: str) -> None:
        """Show how far the training is."""
        if os.environ.get("LOCAL_RANK", "0") == "0":
            progress = self._progress(activity)
            for observer in self.observers:
                observer(progress)

    def _progress(self, activity: str) -> Progress:
        plan, state, meter = self._plan, self._state, self._meter
        done = activity in ("Exporting", "Done")
        phase = plan.phases[state.phase_index]
        return Progress(
            percent=100 if done else min(99, 100 * state.step // plan.total_steps),
            step=state.step,
            total_steps=plan.total_steps,
            epoch=round(state.step / plan.steps_per_epoch, 3),
            phase_index=phase.index,
            phase_count=len(plan.phases),
            phase_name=phase.name,
            loss=state.loss,
            metrics=state.metrics,
            samples_per_second=meter.samples_per_second,
            eta_seconds=0 if done else self._seconds_left(),
            activity=activity,
            tokens_per_second=meter.tokens_per_second,
            learning_rates={block: rate * meter.rate_factor for block, rate in phase.learning_rates.items()},
            checkpoint=self._saver.newest,
            recovery=state.recovery,
            world_size=self._world_size,
            skipped_steps=state.skipped_steps,
            phases=state.phases,
            results=self.results,
            decisions=budget.taken(state.decisions) or None,
            skipped_samples=self._skipped.total,
            rollbacks=len(state.rollbacks),
            cache_hits=self._saved.hits,
            cache_reused=self._saved.reused or None,
            cache_bytes=self._saved.bytes,
            cache_saved_seconds=round(self._saved.seconds, 3),
        )

    def _seconds_left(self) -> int | None:
        state, meter = self._state, self._meter
        if meter.work_seconds is None:
            return None
        planned = self._plan.seconds_left(
            state.step,
            state.phase_index,
            work_seconds=meter.work_seconds,
            evaluation_seconds=state.evaluation_seconds,
            pass_seconds=meter.pass_seconds,
        )
        most = self._spending.left_to_train
        return planned if most is None else min(planned, max(0, round(most)))

    def entered(self, phase: Phase, *, parameters: int, left: int) -> None:
        """Tell of a phase that has begun, in which so many parameters train for so many steps more."""
        self._events.add(
            "phase", index=phase.index, name=phase.name, step=self._state.step, trainableParameters=parameters
        )
        log.info("phase %s: %d parameters train, %d steps left", phase.name, parameters, left)
        self.tell("")
        self.publish("Training")

    def trained(self) -> None:
        """Report a step at which nothing else is reported: its loss is a point of a curve."""
        self._history.trained(self._progress("Training"))

    def evaluated(self, decision: Decision) -> None:
        """Tell of the newest evaluation, and of what it has decided."""
        state = self._state
        self._events.add(
            "evaluation", step=state.step, metrics=in_json(state.metrics), seconds=state.evaluation_seconds
        )
        self._history.evaluated(self._progress("Evaluating"))
        self._tracking.metrics("validation", state.metrics, state.step)
        log.info("step %d: %s", state.step, ", ".join(f"{key} {value:.4g}" for key, value in state.metrics.items()))
        if decision.why:
            log.info("phase %s ends early: %s", self._plan.phases[state.phase_index].name, decision.why)

    def evaluations(self, phase: str) -> list[Evaluated]:
        """Return the evaluations of a phase, on the process that may write; see `CurveFile.evaluations`."""
        return self._history.evaluations(phase)

    def looked(self, lost: float, low: float, high: float) -> None:
        """Tell what of the base's abilities is lost by now, with its 95 % interval."""
        figures = in_json({"lost": lost, "low": low, "high": high})
        self._events.add(
            "forgetting", step=self._state.step, lost=figures["lost"], low=figures["low"], high=figures["high"]
        )

    def went_back(self, rollback: Rollback) -> None:
        """Tell that the training goes on from an earlier step."""
        self._events.add(
            "rollback", step=rollback.step, to=rollback.to, factor=rollback.factor, message=rollback.message
        )
        self._history.go_back(rollback.to)
        self._tracking.went_back(rollback.to)

    def stopped(self) -> None:
        """Tell that the training stops here."""
        self._events.add("stopped", step=self._state.step)
        self.publish("Training")
        self._tracking.close()

    def done(self, results: dict[str, float], test: dict[str, float]) -> None:
        """Tell that the run is done, with its results and the metrics of the test data."""
        self.results = results
        self._events.add("done", results=results)
        self._tracking.metrics("test", test, self._state.step)
        self._tracking.close()
        self.publish("Done")
