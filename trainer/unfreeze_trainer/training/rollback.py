"""Back to where the model was sound, with lower learning rates, where those at hand destroy what it has learned."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from unfreeze_api.contracts.report import Rollback, Usefulness
from unfreeze_trainer.engines.base import persistent_buffers
from unfreeze_trainer.engines.scaling import LossScale
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.judgement.rates import rolled_back
from unfreeze_trainer.runs.checkpoints import BrokenCheckpointError
from unfreeze_trainer.runs.state import RunState
from unfreeze_trainer.usefulness import guess_of

if TYPE_CHECKING:
    from torch import Tensor

    from unfreeze_api.contracts.decision import Decision
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine, OptimizerState
    from unfreeze_trainer.models.hook import StepHook
    from unfreeze_trainer.runs.folder import RunFolder
    from unfreeze_trainer.tasks import Task
    from unfreeze_trainer.training.decisions import Decisions
    from unfreeze_trainer.training.meter import Meter
    from unfreeze_trainer.training.plan import Plan
    from unfreeze_trainer.training.reporter import Reporter
    from unfreeze_trainer.training.saver import Saver
    from unfreeze_trainer.training.trainable import Trainable

log = logging.getLogger(__name__)

FACTOR = 0.3
"""What a rollback multiplies learning rates by."""
MOST = 2
"""Rollbacks of a run; then it fails."""


class WentBack(Exception):  # noqa: N818 - no error
    """The run stands at an earlier step again, on all ranks: its phases are to be entered anew."""


def rate_scale(rollbacks: list[Rollback], phase_index: int) -> float:
    """Return what the learning rates of a phase are multiplied by after a run's rollbacks."""
    return FACTOR ** sum(phase_index >= one.phase_index for one in rollbacks)


def decided_by(step: int, decisions: Sequence[Decision]) -> list[Decision]:
    """Return what was decided before a step is taken again; those about stages count the steps of these, and are older than any."""
    return [one for one in decisions if one.step <= step or one.type == "Stage"]


def _may_be_better(worth: Usefulness | None) -> bool:
    """Return whether a model is more probably better than guessing than not."""
    return worth is not None and worth.gain_low + worth.gain_high > 0


class Rollbacks:
    """Takes a run back.

    Parameters
    ----------
    job, task, plan, state, engine, hook, trainable, saver, folder, meter, reporter, decisions
        Of the run.
    """

    def __init__(
        self,
        job: ResolvedJob,
        task: Task,
        plan: Plan,
        state: RunState,
        *,
        engine: Engine,
        hook: StepHook,
        trainable: Trainable,
        saver: Saver,
        folder: RunFolder,
        meter: Meter,
        reporter: Reporter,
        decisions: Decisions,
    ) -> None:
        self._job, self._task, self._plan, self._state = job, task, plan, state
        self._engine, self._hook, self._trainable = engine, hook, trainable
        self._saver, self._folder, self._meter, self._reporter = saver, folder, meter, reporter
        self._decisions = decisions
        self._tell()
        self._on, self._blank = job.semantics.rates == "Guarded", task.blank_loss

    def _tell(self) -> None:
        """Have each rollback be a decision: what the run resumes from may not know the newest one."""
        rollbacks = self._state.rollbacks
        for count, one in enumerate(rollbacks):
            self._decisions.add(rolled_back(one, rollbacks[:count]))

    def observe(self, losses: Sequence[tuple[float, float]]) -> None:
        """Take note of mean loss and units of steps."""
        self._state.course = self._state.course.after(losses, blank=self._blank)

    def note(self) -> None:
        """Take note of a checkpoint that is about to be written: the run may go back to it unless there is a reason for doubt."""
        if self._state.phase_ended or self._state.course.sound(blank=self._blank):
            self._state.sound_step = self._state.step

    @property
    def wants_untrained(self) -> bool:
        """Whether the model is to be measured before the first step: the first evaluation has nothing else to be compared with."""
        state = self._state
        return (
            self._on and not self._blank and not state.course.steps and state.best is None and state.untrained is None
        )

    def judge(self) -> None:
        """Go back if the newest evaluation shows a model that its learning rates have destroyed. Collective.

        Raises
        ------
        WentBack
            It is at an earlier step.
        JobError
            LearningRateTooHigh: it went back often enough.
        """
        state, metric = self._state, self._job.metric
        value, known = state.metrics[metric.name], (state.untrained, *(best.value for best in state.bests))
        numbers = [one for one in known if one is not None and not math.isnan(one)]
        best = (max if metric.better == "Higher" else min)(numbers, default=None)
        useful = state.usefulness.better if state.usefulness else None
        if "r2" in state.metrics:
            useful = None if math.isnan(r2 := state.metrics["r2"]) else r2 > 0  # of one number alone nobody knows
        if self._on and state.course.destroyed(
            metric,
            value,
            samples=self._task.splits["validation"],
            useful=useful,
            doubtful=_may_be_better(state.usefulness),
            best=best,
            blank=self._blank,
            strict=bool(state.rollbacks),
        ):
            beside = "" if best is None else f", at its best before {best:.3g}"
            worth = state.usefulness
            guess = f", that of always {guess_of(worth)} {worth.majority:.3g}" if worth else ""
            self.go_back(f"{state.course.told()}; validation {metric.name} is {value:.3g}{beside}{guess}")

    def require_useful(self) -> None:
        """Raise LearningRateTooHigh if a run that went back has come to its end without a model that is better than guessing."""
        best = self._state.best
        worth = best.usefulness if best else None
        rungs = {rung.best.step: rung.phase_index for rung in self._state.rungs}
        last = rungs.get(best.step, self._state.phase_index) if best else self._state.phase_index
        touched = any(one.phase_index <= last for one in self._state.rollbacks)  # not of a rung that is not taken
        if touched and worth and not worth.better and not _may_be_better(worth):
            raise JobError("LearningRateTooHigh", self._given_up(f"at the end, {worth.message}"))

    def never_finite(self, error: JobError) -> None:
        """Go back where steps were skipped one after the other that come after others; raise the error otherwise. Collective."""
        if error.reason != "NonFiniteGradients" or not self._on or not self._state.moved:
            raise error
        self.go_back(
            f"{self._state.skipped_in_a_row} steps in a row had gradients that were not finite; {self._state.course.told()}"
        )

    def go_back(self, why: str) -> None:
        """Take the run back to its newest sound checkpoint, the second time to the begin of the phase. Collective.

        Parameters
        ----------
        why
            What was found, with figures.

        Raises
        ------
        WentBack
            It is there.
        JobError
            LearningRateTooHigh: it went back often enough.
        """
        state = self._state
        self._saver.wait()
        if len(state.rollbacks) >= MOST:
            self._give_up_rung(why)
            raise JobError("LearningRateTooHigh", self._given_up(why))
        entry = Rollback(
            step=state.step,
            to=self._target(),
            phase_index=state.phase_index,
            factor=rate_scale(state.rollbacks, state.phase_index) * FACTOR,
            message=why,
        )
        rollbacks = [*state.rollbacks, entry]
        log.warning(
            "step %d: %s; back to step %d, with learning rates times %.2g", state.step, why, entry.to, entry.factor
        )
        self._reporter.tell(f"going back to step {entry.to}, with learning rates times {entry.factor:.2g}")
        self._folder.go_back(rollbacks)
        self._engine.barrier()
        self._restore(entry.to, rollbacks)
        self._reporter.went_back(entry)
        raise WentBack

    def _give_up_rung(self, why: str) -> None:
        """End a run of Auto with the rungs before the present one, if there are any. Collective.

        Raises
        ------
        WentBack
            It stands where this rung began, and no other follows.
        """
        state, engine = self._state, self._engine
        begin = state.begin_step
        if not state.rungs or not engine.any_rank(engine.rank == 0 and begin > 0 and self._whole(begin)):
            return
        said = f"{self._given_up(why)}. This rung is given up, and so are those above it"
        log.warning("%s", said)
        self._folder.events.add("warning", step=state.step, message=said)
        given_up = state.phase_index
        self._restore(begin, state.rollbacks)
        state.climbing, state.given_up = False, given_up
        raise WentBack

    def _given_up(self, why: str) -> str:
        state, rates = self._state, self._job.strategy.learning_rate
        scale = rate_scale(state.rollbacks, state.phase_index)
        before = "; ".join(f"before, at step {one.step}, {one.message}" for one in state.rollbacks[-1:])
        return (
            f"phase {self._plan.phases[state.phase_index].name}, step {state.step}, with the rates of"
            f" spec.strategy.learningRate (head {rates.head:.3g}, backbone {rates.backbone:.3g}) times {scale:.2g} after"
            f" {len(state.rollbacks)} rollbacks: {why} ({before}). They still destroy the model: lower them. With AdamW 1e-3 is"
            " usual for a head, 1e-5 to 1e-4 for a pretrained backbone, 1e-4 to 1e-3 for an adapter"
        )

    def _target(self) -> int:
        """Return the step to go back to, the same on every rank: that of a checkpoint that is whole, or 0."""
        state, found = self._state, 0
        if self._folder.generation:
            for step in (state.begin_step,) if state.rollbacks else (state.sound_step, state.begin_step):
                if step and self._whole(step):
                    found = step
                    break
        return int(self._engine.broadcast_object(found))

    def _whole(self, step: int) -> bool:
        try:
            self._folder.checkpoints.check(step)
        except (BrokenCheckpointError, JobError) as error:
            log.warning("no way back to step %d: %s", step, error)
            return False
        return True

    def _base(self, names: Collection[str]) -> dict[str, Tensor]:
        """Return some parameters of the base, and its buffers, by name."""
        base = self._task.build_model().module
        kept = {name: tensor.detach() for name, tensor in base.named_parameters() if name in names}
        return kept | persistent_buffers(base)

    def _restore(self, step: int, rollbacks: list[Rollback]) -> None:
        """Put engine, hook and state where they were at a step, 0 for the start of the run."""
        now, engine = self._state, self._engine
        names = self._trainable.names(self._plan.phases[: now.phase_index + 1])
        engine.skips()
        engine.end()
        moments: OptimizerState = {}
        before = RunState()
        weights: dict[str, Tensor] = {}
        if step:
            snapshot = self._folder.checkpoints.load(step)
            before, weights, moments = snapshot.state, snapshot.weights, snapshot.moments
        if (lacking := names - weights.keys()) or not step:
            weights = self._base(lacking) | weights
        engine.load_weights(weights)
        del weights
        if engine.loss_scale:
            engine.loss_scale = LossScale(engine.device, *(before.loss_scale or ()))
        self._trainable.resume(self._hook.load_state(moments))
        kept = ("untrained", "unused", "gradients_at_times", "unread", "recovery", "skipped_steps")
        decisions = decided_by(step, now.decisions)
        changed = {name: getattr(now, name) for name in kept} | {"rollbacks": rollbacks, "decisions": decisions}
        before = before.model_copy(update=changed)
        for name in RunState.model_fields:
            setattr(now, name, getattr(before, name))
        if now.best and now.best.step != step and not engine.any_rank(engine.rank == 0 and self._whole(now.best.step)):
            now.forget_best(self._job.metric.name)
        self._saver.went_back(step, now.evaluated_step)
        self._meter.start_over()
        self._tell()
