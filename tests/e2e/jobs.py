"""The job that these tests run, and how its end is waited for."""

from __future__ import annotations

from tests.operator.world import Json, World, until

SECONDS = 400.0


def manifest(name: str, **changes: Json) -> Json:
    """Return a job of three phases in two pods."""
    spec: Json = {
        "model": {"source": "pvc://shared/models/minilm"},
        "task": {"type": "TextClassification", "textClassification": {"maxLength": 32}},
        "data": {
            "train": {"source": "pvc://shared/data/train.csv", "columns": {"text": "question"}},
            "validation": {"fraction": 0.2},
            "test": {"source": "pvc://shared/data/test.csv"},
        },
        "strategy": {
            "type": "GradualUnfreezing",
            "gradualUnfreezing": {"blocksPerPhase": 4, "epochsPerPhase": 1},
            "learningRate": {"head": 1e-3, "backbone": 2e-4},
        },
        "training": {"epochs": 3, "batchSize": 15, "checkpoint": {"everySteps": 5}},
        "distribution": {"numNodes": 2, "resourcesPerNode": {"requests": {"cpu": "1"}}},
        "output": {"destination": f"pvc://shared/{name}"},
    }
    return {
        "apiVersion": "unfreeze.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": spec | changes,
    }


def note(world: World, name: str, seen: list[Json]) -> Json:
    """Return the status of a job, and add it to those that were seen of it when it is another one."""
    status = world.status(name)
    if not seen or status != seen[-1]:
        seen.append(status)
    return status


def finished(world: World, name: str, seen: list[Json]) -> Json:
    """Wait for the end of a job, keeping each status on the way."""

    def ended() -> Json | None:
        status = note(world, name, seen)
        return status if "completionTime" in status else None

    return until(ended, f"{name} ends", SECONDS)
