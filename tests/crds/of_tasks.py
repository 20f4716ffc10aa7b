"""Cases of the corpus that each task brings by what it declares: nobody writes them by hand, and no task lacks them."""

from __future__ import annotations

from typing import Any

from tests.crds.corpus import load, patched
from unfreeze_api.apiserver.validate import validate
from unfreeze_api.tasks import METRICS, TASKS
from unfreeze_api.tasks.base import TaskType


def good() -> dict[str, dict[str, Any]]:
    """Return manifests that are taken, by name: each task alone, with its own member, and with each of its metrics."""
    found = {}
    for task in TASKS:
        found[task.name] = _manifest(task)
        found[f"{task.name} with options"] = _manifest(task, {task.member: {}})
        for metric in task.metrics:
            found[f"{task.name} by {metric.name}"] = _manifest(task, metric=metric.name)
        for metric in task.multi_label:
            member = {task.member: {"labels": "Multi"}}
            found[f"{task.name} of several labels by {metric.name}"] = _manifest(task, member, metric=metric.name)
    return found


def bad() -> dict[str, tuple[dict[str, Any], str]]:
    """Return manifests that are refused, by name, each with the start of what is said: foreign members and metrics."""
    found = {}
    for task, other in zip(TASKS, (*TASKS[1:], TASKS[0]), strict=True):
        said = f"spec.task.{other.member}: Invalid value: {other.member} is only allowed when type is {other.name}"
        found[f"{task.name} with the member of {other.name}"] = (_manifest(task, {other.member: {}}), said)
        own = {metric.name for metric in task.metrics}
        for metric in (name for name in METRICS if name not in own):
            found[f"{task.name} by {metric}"] = (
                _manifest(task, metric=metric),
                "spec.training.metric: Invalid value: ",
            )
    return found


def wrong() -> list[str]:
    """Return the names of the cases that the command line judges otherwise."""
    causes = {name: [str(cause) for cause in validate(manifest)] for name, (manifest, _) in bad().items()}
    refused = [
        name for name, (_, start) in bad().items() if [said.startswith(start) for said in causes[name]] != [True]
    ]
    return [name for name, manifest in good().items() if validate(manifest)] + refused


def _manifest(task: TaskType, member: dict[str, Any] | None = None, **training: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"task": {"type": task.name, **(member or {})}, "training": training}
    if task.towers:
        towers = [
            {"modality": "Image", "source": "pvc://models/one"},
            {"modality": "Text", "source": "pvc://models/other"},
        ]
        spec["model"] = {"source": None, "towers": towers}
    return patched(load("base.yaml"), {"spec": spec, "metadata": {"name": "task"}})
