"""The tasks, a file each. Whatever else has to know of a task (CRD, rules, documents, resolve) follows from its file."""

from __future__ import annotations

import importlib
import pkgutil

from unfreeze_api.tasks.base import TaskType


def _declared() -> tuple[TaskType, ...]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
    return tuple(importlib.import_module(f"{__name__}.{name}").TASK for name in names)


TASKS = _declared()
METRICS = tuple(dict.fromkeys(metric.name for task in TASKS for metric in task.metrics))
"""Names of the metrics of all tasks."""


def task_type(name: str) -> TaskType:
    """Return what a task has declared."""
    return next(task for task in TASKS if task.name == name)
