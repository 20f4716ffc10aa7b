"""`strategy.type: Auto` beside each single strategy, random weights and a classical model, on some of TREC's questions.

    python -m bench.auto FOLDER [WORD ...]

Measures the rows whose names have all the words, as `trec 50, Auto, seed 0`; keeps each in bench/results/auto.jsonl and prints the table. Training
questions are drawn by the seed, a fifth of them is held out, and test questions are TREC's own. All jobs have the same epochs, batches and rates, but
for LoRA's, which are ten times as high. `processor` is the time of a whole job's processor, from its worker's start to its report, of one thread;
`trained` that of its phases by the clock, with their evaluations and forward passes. The floor that all share is the probe's: start, one forward
pass over all data, export; Auto's has the classical model besides. The cost of Auto is what it takes above its floor over what the single strategy
with the best test accuracy takes above the probe; where that is the probe itself, whole jobs are compared.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
import shutil
import sys
import time
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from bench.features import of_worker
from bench.support.outcomes import record
from examples.prepare import prepare

Row = dict[str, Any]

SEEDS, LEAST = (0, 1, 2), 2
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
    for seed, name, strategy in itertools.product(SEEDS, SETS, (*STRATEGIES, CLASSICAL)):
        row = f"{name}, {strategy}, seed {seed}"
        if all(word in row for word in sys.argv[2:]):
            found.append(record("auto", row, partial(_measured, folder, name, strategy, seed)))
    print(table(found))


def _measured(folder: Path, name: str, strategy: str, seed: int) -> Row:
    rows = drawn(folder, name, seed)
    row = {"set": name, "strategy": strategy, "seed": seed}
    if strategy == CLASSICAL:
        return row | _classical(folder, rows, seed)
    given, run = STRATEGIES[strategy], folder / "auto" / f"{name}-{strategy}-{seed}".replace(" ", "-").lower()
    shutil.rmtree(run, ignore_errors=True)  # of a job that was ended in between
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
    seconds = of_worker(spec, run)
    report = json.loads((run / "report.json").read_text())
    decided = [one for one in report["decisions"] if one["type"] in ("Rung", "Trial", "Strategy", "Baseline")]
    return row | {
        "accuracy": round(report["results"]["test"]["accuracy"], 4),
        "validation": round(report["results"]["validation"]["accuracy"], 4),
        "processor": round(seconds, 1),
        "trained": round(sum(phase["seconds"] for phase in report["phases"]), 1),
        "phases": {phase["name"]: phase["steps"] for phase in report["phases"]},
        "decisions": [one["message"] for one in decided],
    }


def drawn(folder: Path, name: str, seed: int) -> Path:
    """Write the training questions of a set, at least two of each class; return the file."""
    file = folder / "auto" / f"{name.replace(' ', '-')}-{seed}.csv"
    rows = read(folder / "data" / "trec-train.csv")
    random.Random(seed).shuffle(rows)  # noqa: S311 - no secret
    seen: Counter[str] = Counter()
    rows.sort(
        key=lambda row: seen.update([row[1]]) or seen[row[1]] > LEAST
    )  # two of each class first, the others as they are
    rows = rows[: SETS[name]["rows"]]
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("question", "label"), *rows])
    return file


def read(file: Path) -> list[tuple[str, str]]:
    """Return questions and labels of a file."""
    with file.open(encoding="utf-8", newline="") as rows:
        return [(row["question"], row["label"]) for row in csv.DictReader(rows)]


def _classical(folder: Path, rows: Path, seed: int) -> Row:
    """Return what the classical model has that stands below the rungs, on all questions: no choice is made with it."""
    from unfreeze_trainer.judgement.classical import fit

    train, test = read(rows), read(folder / "data" / "trec-test.csv")
    labels = sorted({label for _, label in train})
    ids = np.array([labels.index(label) for _, label in train])
    texts = [(question,) for question, _ in train]
    began = time.process_time()
    model = fit("OneOf", "Texts", texts, ids, outputs=len(labels), pairs=False, seed=seed)
    took = time.process_time() - began
    said = model.predict([(question,) for question, _ in test]).argmax(axis=1)
    right = [labels[place] == label for place, (_, label) in zip(said, test, strict=True)]
    return {"accuracy": round(mean(right), 4), "processor": round(took, 1)}


def table(found: list[Row]) -> str:
    """Return the table in Markdown: of each set and strategy test accuracy and cost, and of Auto what it cost over the best single strategy."""
    lines = ["| set | strategy | seeds | test accuracy | processor, s |", "|---" * 5 + "|"]
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in found:
        groups[row["set"], row["strategy"]].append(row)
    for (name, strategy), rows in groups.items():
        values, seconds = [row["accuracy"] for row in rows], mean(row["processor"] for row in rows)
        spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
        lines.append(f"| {name} | {strategy} | {len(rows)} | {mean(values):.3f}{spread} | {seconds:.1f} |")
    lines += ["", "| set | best single | accuracy | Auto | cost above the floor | of whole jobs |", "|---" * 6 + "|"]
    for name in dict.fromkeys(row["set"] for row in found):
        of = {strategy: rows for (one, strategy), rows in groups.items() if one == name}
        singles = {
            strategy: mean(row["accuracy"] for row in rows) for strategy, rows in of.items() if strategy != "Auto"
        }
        singles.pop(CLASSICAL, None)
        if "Auto" not in of or "probe" not in singles or CLASSICAL not in of:
            continue
        best = max(singles, key=lambda strategy: singles[strategy])
        auto, single, probe, classical = (
            mean(row["processor"] for row in of[one]) for one in ("Auto", best, "probe", CLASSICAL)
        )
        above = f"{(auto - probe - classical) / (single - probe):.2f}" if best != "probe" else ""
        own = mean(row["accuracy"] for row in of["Auto"])
        lines.append(f"| {name} | {best} | {singles[best]:.3f} | {own:.3f} | {above} | {auto / single:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
