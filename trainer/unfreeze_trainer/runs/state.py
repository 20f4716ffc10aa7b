"""Where a training stands: everything a run has to know to resume as if it had not stopped, beside the tensors."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from unfreeze_api.contracts.decision import Decision
from unfreeze_api.contracts.progress import PhaseResult, Recovery
from unfreeze_api.contracts.report import Rollback, Usefulness
from unfreeze_trainer.runs.course import Course
from unfreeze_trainer.runs.pull import Pull

_DIVERGED = ConfigDict(ser_json_inf_nan="constants")
"""A training that diverged can be resumed too: its losses are no numbers, and come back as such."""


class Best(BaseModel):
    """The best evaluation so far."""

    model_config = _DIVERGED

    step: int
    value: float
    metrics: dict[str, float]
    usefulness: Usefulness | None = None
    beyond: float = 0.0
    """What is lost, where that is more than the budget of forgetting; 0 within it."""


class Rung(BaseModel):
    """A rung of Auto that is over."""

    model_config = _DIVERGED

    phase_index: int
    best: Best
    """Its best evaluation."""
    steps: int
    seconds: float


class RunState(BaseModel):
    """Position in the plan, evaluations and finished phases; stands in each checkpoint as JSON.

    `step` is the position in the plan: a phase that stops early skips the rest of its steps, so that learning rates and
    data order of what follows are those of the plan.
    """

    model_config = _DIVERGED

    step: int = 0
    """Steps of the plan that are done or skipped."""
    phase_index: int = 0
    """Phase that the step belongs to; at its end it is not yet the next one."""
    phase_steps: int = 0
    """Steps that this phase took."""
    phase_seconds: float = 0.0
    """Time that this phase took, over all starts."""
    phase_ended: bool = False
    """Whether this phase is over, by its steps or by early stopping."""
    evaluated_step: int = -1
    """Step of the newest evaluation."""
    metrics: dict[str, float] = {}
    """Its metrics."""
    usefulness: Usefulness | None = None
    """What it says of the model."""
    evaluation_seconds: float = 0.0
    """Time that it took."""
    saying_seconds: float = 0.0
    """Time that a rank takes for what the model says of one sample, where that is measured."""
    untrained: float | None = None
    """What the metric was before the first step, where that was measured."""
    best: Best | None = None
    """Best evaluation of the run; of Auto that of the present rung, until one is chosen."""
    phase_best: float | None = None
    """Best value of the metric in this phase, for early stopping."""
    bad_evaluations: int = 0
    """Evaluations in this phase since then."""
    phases: list[PhaseResult] = []
    """Phases that have ended."""
    loss_scale: tuple[float, int] | None = None
    """Of float16: the factor, and the steps since it changed."""
    skipped_steps: int = 0
    """Steps whose gradients were not finite."""
    skipped_in_a_row: int = 0
    """The newest of them without another step in between."""
    moved: bool = False
    """Whether any step had finite gradients."""
    trainable_hash: str = ""
    """Hash of the names that this phase is to train."""
    unused: list[str] | None = None
    """Parameters that get no gradient and stay frozen; None where nobody has looked yet."""
    gradients_at_times: list[str] = []
    """Parameters that get a gradient in some steps only."""
    unread: dict[str, list[int]] = {}
    """Samples of each split that could not be read when it was their turn, and were skipped."""
    decisions: list[Decision] = []
    """What was decided by what was measured."""
    loss: float | None = None
    """Smoothed training loss."""
    recovery: Recovery | None = None
    """The newest start that found broken checkpoints."""
    course: Course = Course()
    """What the losses of this phase say of its learning rates."""
    sound_step: int = 0
    """Newest checkpoint at which they gave no reason for doubt; 0 is the start."""
    begin_step: int = 0
    """Checkpoint that this phase began with, which one before it wrote that may have ended early; 0 is the start."""
    beyond: float = 0.0
    """What is lost at the newest evaluation, where that is more than the budget and the training ends there; 0 within it."""
    gauge_seconds: float = 0.0
    """Time that the gauges of forgetting have taken, over all starts."""
    pull: Pull = Pull()
    """How strongly guard Hold pulls weights to the base's in this phase."""
    corrections: int = 0
    """Evaluations before which it had to bring them back within the budget."""
    replayed: int = 0
    """Rows that guard Replay has trained on, each as often as it was taken."""
    guard_seconds: float = 0.0
    """Time that these guards have taken, over all starts."""
    rollbacks: list[Rollback] = []
    """When the training went back with lower learning rates."""
    rungs: list[Rung] = []
    """Of Auto, those that are over."""
    climbing: bool = True
    """Whether another one follows."""
    over: bool = False
    """Whether the job's budget has ended the training."""
    given_up: int | None = None
    """Phase of the rung whose learning rates destroyed the model however low they were, so that none follows."""

    @property
    def trained_seconds(self) -> float:
        """Time that all phases so far have taken, over all starts."""
        return sum(phase.seconds for phase in self.phases) + (0.0 if self.phase_ended else self.phase_seconds)

    @property
    def bests(self) -> list[Best]:
        """The best evaluations: of the run, of Auto one of each rung."""
        return [*(rung.best for rung in self.rungs), *([self.best] if self.best else [])]

    def take_best(self, metric: str) -> None:
        """Take the newest evaluation, which is of this step, for the best one."""
        self.best = Best(
            step=self.step,
            value=self.metrics[metric],
            metrics=self.metrics,
            usefulness=self.usefulness,
            beyond=self.beyond,
        )

    def forget_best(self, metric: str) -> None:
        """Do without the best evaluation, whose checkpoint is lost: the newest one is the best, if it is of this step."""
        self.best = None
        if self.evaluated_step == self.step:
            self.take_best(metric)
