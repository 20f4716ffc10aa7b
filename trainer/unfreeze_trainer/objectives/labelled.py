"""Which objective the options of a task with labels ask for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from unfreeze_api.grammar.one_of import OneOf
from unfreeze_api.tasks.labels import LabelOptions
from unfreeze_trainer.objectives.base import Objective
from unfreeze_trainer.objectives.classification import Classification
from unfreeze_trainer.objectives.multi_label import MultiLabel
from unfreeze_trainer.objectives.targets import Encoder


def labelled(task: OneOf) -> Callable[[Encoder[Any]], Objective]:
    """Return what makes the objective of what the training data says."""
    options = task.options
    assert isinstance(options, LabelOptions)
    kind = MultiLabel if options.labels == "Multi" else Classification
    return partial(kind, options=options, where=f"spec.task.{task.kind.member}")
