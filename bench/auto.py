"""`strategy.type: Auto` beside each single strategy, random weights and a classical model, on some of TREC's questions.

    python -m bench.auto FOLDER [WORD ...]

Measures the rows whose names have all the words, as `trec 50, Auto, seed 0`; keeps each in bench/results/auto.jsonl and prints the table. Training
questions are drawn by the seed, a fifth of them is held out, and test questions are TREC's own. All jobs have the same epochs, batches and rates, but
for LoRA's, which are ten times as high. `seconds` is a whole job, from its process to its report; `trained` is the time of its phases with their
evaluations and forward passes, without start, classical model and export. The cost of Auto is its `trained` over that of the single strategy
with the best test accuracy.
"""

from __future__ import annotations

import csv
import json
import random
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from bench.support.outcomes import record, trained
from examples.prepare import prepare

Row = dict[str, Any]

SEEDS = (0, 1, 2)
SETS: dict[str, Row] = {
    "trec 50": {"rows": 50, "training": {"epochs": 12, "batchSize": 8}},
    "trec 200": {"rows": 200, "training": {"epochs": 8, "batchSize": 16}},
}
_RATES: Row = {"learningRate": {"head": 5e-3, "backbone": 2e-4, "layerDecay": 0.9}}
STRATEGIES: dict[str, Row] = {
    "Auto": {"strategy": {"type": "Auto", **_RATES}},
    "probe": {"strategy": {"type": "FeatureExtraction", "solver": "Closed"}},
    "LoRA": {
        "strategy": {"type": "FullFineTuning", "learningRate": {"head": 2e-3}},
        "adapter": {"type": "LoRA", "lora": {"r": 8, "loraAlpha": 16}},
    },
    "gradual": {"strategy": {"type": "GradualUnfreezing", "gradualUnfreezing": {"blocksPerPhase": 3}, **_RATES}},
    "full": {"strategy": {"type": "FullFineTuning", **_RATES}},
    "scratch": {"strategy": {"type": "FullFineTuning", **_RATES}, "model": {"initialization": "Random"}},
}
CLASSICAL = "classical"


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare(folder)
    (folder / "auto").mkdir(exist_ok=True)
    found = []
    for name in SETS:
        for strategy in (*STRATEGIES, CLASSICAL):
            for seed in SEEDS:
                row = f"{name}, {strategy}, seed {seed}"
                if all(word in row for word in sys.argv[2:]):
                    found.append(record("auto", row, partial(_measured, folder, name, strategy, seed)))
    print(table(found))


def _measured(folder: Path, name: str, strategy: str, seed: int) -> Row:
    rows = _drawn(folder, name, seed)
    row = {"set": name, "strategy": strategy, "seed": seed}
    if strategy == CLASSICAL:
        return row | _classical(folder, rows, seed)
    given, place = STRATEGIES[strategy], folder / "auto"
    spec = {
        "model": {"source": f"file://{folder}/models/minilm", **given.get("model", {})},
        "task": {"type": "TextClassification", "textClassification": {"maxLength": 32}},
        "data": {
            "train": {"source": f"file://{rows}", "columns": {"text": "question"}},
            "validation": {"fraction": 0.2},
            "test": {"source": f"file://{folder}/data/trec-test.csv"},
        },
        "training": {**SETS[name]["training"], "seed": seed},
        **{key: value for key, value in given.items() if key != "model"},
    }
    run = f"{name}-{strategy}-{seed}".replace(" ", "-").lower()
    results = trained(place, run, spec)
    report = json.loads((place / run / "report.json").read_text())
    decided = [one for one in report["decisions"] if one["type"] in ("Rung", "Trial", "Strategy", "Baseline")]
    return row | {
        "accuracy": round(results["accuracy"], 4),
        "validation": round(report["results"]["validation"]["accuracy"], 4),
        "trained": round(sum(phase["seconds"] for phase in report["phases"]), 1),
        "phases": {phase["name"]: phase["steps"] for phase in report["phases"]},
        "decisions": {one["type"]: one["message"] for one in decided},
    }


def _drawn(folder: Path, name: str, seed: int) -> Path:
    """Write the training questions of a set; return the file."""
    file = folder / "auto" / f"{name.replace(' ', '-')}-{seed}.csv"
    rows = random.Random(seed).sample(_read(folder / "data" / "trec-train.csv"), SETS[name]["rows"])  # noqa: S311
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("question", "label"), *rows])
    return file


def _read(file: Path) -> list[tuple[str, str]]:
    with file.open(encoding="utf-8", newline="") as rows:
        return [(row["question"], row["label"]) for row in csv.DictReader(rows)]


def _classical(folder: Path, rows: Path, seed: int) -> Row:
    """Return what the classical model has that stands below the rungs, on all questions: no choice is made with it."""
    from unfreeze_trainer.judgement.classical import fit

    began = time.perf_counter()
    train, test = _read(rows), _read(folder / "data" / "trec-test.csv")
    labels = sorted({label for _, label in train})
    ids = np.array([labels.index(label) for _, label in train])
    texts = [(question,) for question, _ in train]
    model = fit("OneOf", "Texts", texts, ids, outputs=len(labels), pairs=False, seed=seed)
    said = model.predict([(question,) for question, _ in test]).argmax(axis=1)
    right = [labels[place] == label for place, (_, label) in zip(said, test, strict=True)]
    return {"accuracy": round(mean(right), 4), "trained": round(time.perf_counter() - began, 1)}


def table(found: list[Row]) -> str:
    """Return the table in Markdown: of each set and strategy test accuracy and seconds, and how many times the best one's cost Auto took."""
    lines = ["| set | strategy | seeds | test accuracy | seconds of training | Auto's over these |", "|---" * 6 + "|"]
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in found:
        groups[row["set"], row["strategy"]].append(row)
    for (name, strategy), rows in groups.items():
        auto = groups.get((name, "Auto"), [])
        values, seconds = [row["accuracy"] for row in rows], mean(row["trained"] for row in rows)
        spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
        over = f"{mean(row['trained'] for row in auto) / seconds:.2f}" if auto and seconds else ""
        lines.append(f"| {name} | {strategy} | {len(rows)} | {mean(values):.3f}{spread} | {seconds:.1f} | {over} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
