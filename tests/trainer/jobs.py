"""Small jobs and small models for the tests of the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unfreeze_api.resolve import ResolvedJob, resolve
from unfreeze_api.spec import FineTuneJobSpec

WORDS = "how what who where when which is are the a of in to tall far many city man year name river war".split()


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the nested values of `change`."""
    out = dict(base)
    for key, value in change.items():
        out[key] = merge(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def make_job(model: Path | str, train: Path | str, **change: Any) -> ResolvedJob:
    """Resolve a small job; `change` are fields of the spec, merged in."""
    spec = {
        "model": {"source": f"file://{model}"},
        "task": {"type": "TextClassification"},
        "data": {"train": {"source": f"file://{train}"}, "validation": {"fraction": 0.25}},
        "strategy": {"type": "FullFineTuning"},
        "training": {"epochs": 1, "batchSize": 4},
        "output": {"destination": "file:///tmp/run"},
    }
    return resolve("job", "default", FineTuneJobSpec.model_validate(merge(spec, change)), rendezvous_host="localhost")


def write_csv(path: Path, rows: int = 24, labels: tuple[str, ...] = ("a", "b", "c")) -> Path:
    """Write a table whose label is told by the first word of the text."""
    lines = [f"{WORDS[i % len(labels)]} {WORDS[7 + i % 11]} {WORDS[5 + i % 13]},{labels[i % len(labels)]}" for i in range(rows)]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    return path
