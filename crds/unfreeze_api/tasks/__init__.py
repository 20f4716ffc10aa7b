"""The tasks, a file each. Whatever else has to know of a task (CRD, rules, documents, resolve) follows from its file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence

from unfreeze_api.grammar.columns import Column
from unfreeze_api.grammar.words import every
from unfreeze_api.tasks.base import TaskType

_SHARED = ("base", "labels")
"""Files that are no task."""


def _declared() -> tuple[TaskType, ...]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _SHARED)
    return tuple(importlib.import_module(f"{__name__}.{name}").TASK for name in names)


TASKS = _declared()
METRICS = tuple(
    dict.fromkeys(metric.name for task in TASKS for metric in (*task.metrics, *task.multi_label, *task.of_scores))
)
"""Names of the metrics of all tasks."""


def columns(tasks: Sequence[TaskType] = TASKS) -> list[tuple[Column, str]]:
    """Return the columns that any task reads, each with the description of its field."""
    found: dict[str, Column] = {}
    for column in (column for task in tasks for column in task.reads):
        if found.setdefault(column.name, column) != column:
            raise ValueError(f"two tasks say of the column {column.name} what it holds, and not the same")
    described = []
    for column in found.values():
        readers = [task for task in tasks if column in task.reads]
        whose = f", for {every(readers)}" if len(readers) < len(tasks) else ""
        default = "none" if column.optional else column.name
        described.append((column, f"Column{'s' * column.many} {column.about}{whose}. Default: {default}."))
    return described


def task_type(name: str) -> TaskType:
    """Return what a task has declared."""
    return next(task for task in TASKS if task.name == name)
