"""What comes before a job and what guards it, in job.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from unfreeze_api.contracts.resolved.data import Columns, Dataset, HeldOut, ResolvedData
from unfreeze_api.contracts.resolved.places import Location
from unfreeze_api.contracts.resolved.strategy import ResolvedStrategy
from unfreeze_api.grammar.model import Model, Since
from unfreeze_api.sources.base import Places
from unfreeze_api.spec.adapter import AdapterSpec
from unfreeze_api.spec.data import ColumnsSpec, TaskSpec
from unfreeze_api.spec.evidence import TRAINING_GUARDS, EvidenceSpec, usual_replay_share
from unfreeze_api.spec.training import TrainingSpec
from unfreeze_api.tasks import task_type

if TYPE_CHECKING:
    from unfreeze_api.spec.job import FineTuneJobSpec
    from unfreeze_api.spec.stages import StageSpec


class ResolvedStage(Model):
    """An intermediate task, with all that it has of the job."""

    name: str
    keep: Literal["Always", "IfHelps"] = "Always"
    task: TaskSpec
    data: ResolvedData
    strategy: ResolvedStrategy
    adapter: AdapterSpec | None = None
    training: TrainingSpec
    text_encoder: Annotated[Location | None, Since(2)] = None
    """What reads texts in place of the job's language model."""

    @classmethod
    def of(cls, stage: StageSpec, spec: FineTuneJobSpec, places: Places) -> Self:
        """Return a stage of a job, with what it has of it."""
        same = stage.task is None or stage.task.type == spec.task.type
        task = (spec.task if same else _before(spec, stage.task.type)).completed()  # type: ignore[union-attr]
        if (options := task.options) and getattr(options, "class_weights_by_label", None):  # of other labels
            task = task.model_copy(
                update={task.kind.field: options.model_copy(update={"class_weights_by_label": None})}
            )
        metric = task_type(task.type).metric(spec.training.metric if same else None, task.options).name
        asked = {name: getattr(stage.training, name, None) for name in ("epochs", "batch_size")}
        own = {name: value for name, value in asked.items() if value is not None}
        if not task_type(task.type).writes:  # it has no texts to say
            own["evaluate"] = spec.training.evaluate.model_copy(update={"generate": None})
        if stage.text_encoder:  # encoders that stand side by side have none
            own["gradient_checkpointing"] = False
        names = Columns().renamed(stage.data.train.named)
        data = ResolvedData(
            train=Dataset.resolve(stage.data.train.source, places, columns=names),
            validation=HeldOut.resolve(stage.held_out, names, places),
            on_error=spec.data.on_error or "Fail",
            show_values=bool(spec.data.show_values),
        )
        return cls(
            name=stage.name,
            keep=stage.keep,
            task=task,
            data=data,
            strategy=ResolvedStrategy.resolve(stage.whole_strategy, stage.whole_adapter),
            adapter=stage.whole_adapter,
            training=spec.training.model_copy(update={"metric": metric, **own}),
            text_encoder=stage.text_encoder and Location.resolve(stage.text_encoder, places),
        )


def _before(spec: FineTuneJobSpec, task: str) -> TaskSpec:
    """Return a stage's task of another type: defaults, but that an encoder sees and hears as it does in the job."""
    found = TaskSpec.model_validate({"type": task}).completed()
    if not task_type(task).joins or (options := found.options) is None:
        return found
    seen = {name: getattr(spec.task.options, name, None) for name in ("image_size", "max_seconds")}
    return found.model_copy(update={found.kind.field: options.model_copy(update=seen)})


class ResolvedGuard(Model):
    """A guard of evidence.forgetting that changes how weights are trained: it is a part of what is learned."""

    type: Literal["Replay", "Hold"]
    share: float | None = None
    """Of Replay, rows of the anchor for each training sample."""
    budget: float | None = None
    """Of Hold, what may be lost."""
    anchor: str | None = None
    """Where the rows lie that are replayed, or that say how strongly weights are held."""
    columns: ColumnsSpec | None = None
    """Names of their columns, where they are not those of the training data."""

    @classmethod
    def of(cls, spec: EvidenceSpec | None, task: str) -> Self | None:
        """Return the guard of a task's job, None where it changes nothing of the training."""
        forgetting = spec.forgetting if spec else None
        if forgetting is None or forgetting.guard not in TRAINING_GUARDS:
            return None
        rows: dict[str, Any] = {}
        if forgetting.anchor:
            rows = {"anchor": forgetting.anchor.source, "columns": forgetting.anchor.columns}
        if forgetting.guard == "Hold":
            return cls(type="Hold", budget=forgetting.budget, **rows)
        share = forgetting.replay.share if forgetting.replay else None
        return cls(type="Replay", share=share or usual_replay_share(task), **rows)
