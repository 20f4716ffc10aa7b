"""What intermediate stages bring a job with 100 labels: MiniLM learns TREC's six kinds of answer first, then ten of the finer ones.

    python -m bench.stages FOLDER [WORD ...]

Measures the rows whose names have all the words. 100 questions, ten of each of the ten commonest finer kinds, are drawn by a seed; the stage has
all other training questions, with their coarse kind, or with kinds that are shuffled, which tell nothing; `chain` has another stage before that with coarse kinds, descriptions of Debian's packages
with the eight largest sections (needs `apt-get update`). All are with `keep: IfHelps`; `skipped` is the same job without a stage. Test questions are those of the ten kinds. Prints the rows, and keeps each in bench/results/stages.jsonl.
"""

from __future__ import annotations

import csv
import json
import random
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import trainer
from bench.support.outcomes import interval, record, said, trained
from examples.prepare import prepare, prepare_labels

KINDS, EACH, SEEDS = 10, 10, (0, 1, 2)
STAGES = {"coarse": ("coarse",), "shuffled": ("shuffled",), "chain": ("sections", "coarse")}
RATES = {"head": 2e-3, "backbone": 2e-4, "layerDecay": 0.8}

Row = dict[str, Any]


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    if not (folder / "data" / "trec-labels-train.csv").exists():
        prepare(folder)
        prepare_labels(folder)
    names = {f"trec, {kind}, seed {seed}": (kind, seed) for seed in SEEDS for kind in STAGES}
    asked = {name: what for name, what in names.items() if all(word in name for word in sys.argv[2:])}
    rows = [record("stages", name, partial(_measured, folder, name, *what)) for name, what in asked.items()]
    print(json.dumps(rows, indent=1))


def _measured(folder: Path, name: str, kind: str, seed: int) -> Row:
    place = folder / "stages"
    _write_tables(folder, place, kind, seed)
    alone, after = f"skipped-{seed}", f"{kind}-{seed}"
    trained(place, alone, _job(folder, seed))
    trained(place, after, _job(folder, seed) | {"stages": [_stage(place, name, seed) for name in STAGES[kind]]})
    right = {one: _right(place, one) for one in (alone, after)}
    gained = right[after].astype(float) - right[alone]
    report = json.loads((place / after / "report.json").read_text())
    decisions = [one for one in report["decisions"] if one["type"] == "Stage"]
    gains = [one for decision in decisions for one in decision["evidence"] if one["name"].startswith("gain")]
    probes = [{key: round(gain[key], 4) for key in ("value", "low", "high")} for gain in gains]
    stages = [json.loads((place / after / "stages" / name / "report.json").read_text()) for name in STAGES[kind]]
    return {
        "set": name,
        "drawn by": seed,
        "test questions": len(gained),
        "accuracy without": round(float(right[alone].mean()), 4),
        "accuracy with IfHelps": round(float(right[after].mean()), 4),
        "gain": round(float(gained.mean()), 4),
        "gain 95 %": interval(lambda rows: gained[rows].mean(), len(gained)),
        "kept": ", ".join(decision["answer"] for decision in decisions),
        "probe": probes[0] if len(probes) == 1 else probes,
        "probe seconds": round(sum(decision["seconds"] for decision in decisions), 1),
        "stage seconds": round(sum(phase["seconds"] for stage in stages for phase in stage["phases"])),
        "own seconds": round(sum(phase["seconds"] for phase in report["phases"])),
    }


def _right(place: Path, name: str) -> np.ndarray:
    rows = said(place, name)
    return np.array(rows["label"]) == np.array(rows["prediction"])


def _write_tables(folder: Path, place: Path, kind: str, seed: int) -> None:
    place.mkdir(exist_ok=True)
    train, test = (_read(folder / "data" / f"trec-labels-{name}.csv") for name in ("train", "test"))
    common = [kind for kind, _ in Counter(fine for _, _, fine in train).most_common(KINDS)]
    drawn = random.Random(seed)  # noqa: S311
    own = [row for kind in common for row in drawn.sample([row for row in train if row[2] == kind], EACH)]
    others = [row for row in train if row not in own]
    coarse = [row[1] for row in others]
    if kind == "chain":
        _write(place / f"sections-{seed}.csv", trainer.sections())
    _write(place / f"own-{seed}.csv", [(row[0], row[2]) for row in own])
    _write(place / f"test-{seed}.csv", [(row[0], row[2]) for row in test if row[2] in common])
    _write(place / f"coarse-{seed}.csv", list(zip((row[0] for row in others), coarse, strict=True)))
    drawn.shuffle(coarse)
    _write(place / f"shuffled-{seed}.csv", list(zip((row[0] for row in others), coarse, strict=True)))


def _read(file: Path) -> list[tuple[str, str, str]]:
    """Return question, coarse and finer kind of each row; names of finer kinds have the coarse one before them."""
    with file.open(encoding="utf-8", newline="") as rows:
        found = [(row["question"], *row["label"].split(",")) for row in csv.DictReader(rows)]
    return [(question, coarse, f"{coarse}-{fine}") for question, coarse, fine in found]


def _write(file: Path, rows: list[tuple[str, str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("question", "label"), *rows])


def _job(folder: Path, seed: int) -> Row:
    place = folder / "stages"
    return {
        "model": {"source": f"file://{folder}/models/minilm"},
        "task": {"type": "TextClassification", "textClassification": {"maxLength": 32}},
        "data": {
            "train": {"source": f"file://{place}/own-{seed}.csv", "columns": {"text": "question"}},
            "validation": {"fraction": 0.2},
            "test": {"source": f"file://{place}/test-{seed}.csv"},
        },
        "strategy": {"type": "FullFineTuning", "learningRate": RATES},
        "training": {"epochs": 15, "batchSize": 16, "seed": seed},
    }


def _stage(place: Path, kind: str, seed: int) -> Row:
    return {
        "name": kind,
        "keep": "IfHelps",
        "data": {"train": {"source": f"file://{place}/{kind}-{seed}.csv", "columns": {"text": "question"}}},
        "strategy": {"type": "FullFineTuning", "learningRate": RATES},
        "training": {"epochs": 1, "batchSize": 32},
    }


if __name__ == "__main__":
    main()
