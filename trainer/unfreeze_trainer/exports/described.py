"""What an export says of itself, so that it can be asked again: its task, what its outputs stand for, how inputs are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from unfreeze_api.grammar.model import Model

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.tasks import Task


class Described(Model):
    """Part of an export's unfreeze.json."""

    task: dict[str, Any]
    """As in the manifest."""
    outputs: list[str]
    """What each output stands for; of vectors of pictures and texts the classes that were told by prompts, of others nothing."""
    scale: tuple[list[float], list[float]] | None = None
    """Factor and offset by which the outputs are in the units of the data, where training has others."""
    columns: dict[str, Any] = Field(default={})
    """Names of the columns of the training data, by their fields."""
    metric: str | None = None
    """That chose the weights."""
    semantics: dict[str, Any] = Field(default={})
    """Of the run."""
    quantization: dict[str, Any] | None = None
    """Of the base below an adapter."""


def described(job: ResolvedJob, task: Task) -> dict[str, Any]:
    """Return what the seal of an export says of it, as {"described": ...}."""
    scale = getattr(getattr(task, "objective", None), "scale", None)
    quantization = job.model.quantization
    found = Described(
        task=getattr(task, "job", job).task.model_dump(mode="json", exclude_none=True),
        outputs=list(task.answers.names if task.answers else task.told),
        scale=scale and (list(scale[0]), list(scale[1])),
        columns=job.data.train.columns.model_dump(mode="json", exclude_none=True),
        metric=job.metric.name,
        semantics=job.semantics.model_dump(mode="json", exclude_defaults=True),
        quantization=quantization and quantization.model_dump(mode="json", exclude_none=True),
    )
    return {"described": found.model_dump(mode="json", exclude_none=True)}
