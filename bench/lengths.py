"""What batches of samples of similar length save (`training.groupByLength`), and what models are worth that trained on them.

    python -m bench.lengths FOLDER [trec|paragraphs|outcomes ...]

Prints JSON: the share of padding of an epoch, as drawn and grouped, and the steps per second of one by the other's, over a
whole epoch, in turns of some steps within one process of one thread; of full fine-tuning of MiniLM on TREC's questions and on 400 paragraphs
of this project's documentation, whose lengths are mixed. Micro batches, `as drawn` cut in four, are cut by length.
`outcomes` is the accuracy on 1,000 held-out questions after the same training, for five seeds, and the mean of the
seeds' differences with its 95 % interval (Student's t). Its raw rows go into bench/results/lengths.jsonl.
"""

from __future__ import annotations

import csv
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from scipy.stats import t as student_t

from bench.support.outcomes import record, trained
from bench.support.turns import make_job, steps_of
from examples.prepare import prepare
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.link import Link
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.run import Run

BATCH, STEPS = 32, 8
TRAINED, HELD = 1000, 1000
PARAGRAPHS = 400
SEEDS = range(5)
ROOT = Path(__file__).parents[1]
HOW: dict[str, dict[str, Any]] = {
    "grouped": {"groupByLength": True},
    "as drawn": {},
    "as drawn, in four": {"gradientAccumulationSteps": 4},
}


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    prepare(folder)
    paragraphs = list(_paragraphs())
    random.Random(0).shuffle(paragraphs)  # noqa: S311 - a sample
    _write(folder / "paragraphs.csv", paragraphs[:PARAGRAPHS])
    sets = {
        "trec": (folder / "data" / "trec-train.csv", "question", 64),
        "paragraphs": (folder / "paragraphs.csv", "text", 256),
    }
    for name in sys.argv[2:] or (*sets, "outcomes"):
        found = _outcomes(folder) if name == "outcomes" else _steps(folder, *sets[name])
        print(json.dumps({"benchmark": "lengths", "set": name, **found}, indent=1), flush=True)
    os._exit(0)  # threads are held in the middle of a step


def _paragraphs() -> Iterator[tuple[str, str]]:
    for file in sorted((ROOT / "docs").glob("*.md")):
        for text in file.read_text(encoding="utf-8").split("\n\n"):
            if any(map(str.isalpha, text)):
                yield " ".join(text.split()), file.stem


def _write(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def _spec(folder: Path, path: Path, column: str, longest: int, **training: Any) -> dict[str, Any]:
    return {
        "model": {"source": f"file://{folder}/models/minilm"},
        "task": {"type": "TextClassification", "textClassification": {"maxLength": longest}},
        "data": {
            "train": {"source": f"file://{path}", "columns": {"text": column}},
            "validation": {"fraction": 0.1},
            "test": {"fraction": 0.1},
        },
        "strategy": {"type": "FullFineTuning"},
        "training": {"batchSize": BATCH, **training},
    }


def _steps(folder: Path, path: Path, column: str, longest: int) -> dict[str, Any]:
    """Return padding and ratios of one epoch of each way, its steps in turns."""
    runs: dict[str, Run] = {}
    for name, options in HOW.items():
        never = {"epochs": 3, "checkpoint": {"everySteps": 10**8}, "evaluate": {"everySteps": 10**8}}
        job = make_job(tempfile.mkdtemp(), **_spec(folder, path, column, longest, **never, **options))
        task = open_task(job)
        runs[name] = Run(job, task, task.build_model(), open_engine(job), Link(Path(tempfile.mkdtemp())))
    going, seconds = {name: steps_of(run) for name, run in runs.items()}, dict.fromkeys(runs, 0.0)
    whole = runs["grouped"].feed.steps_per_epoch
    each = STEPS if whole > 2 * STEPS else 2
    for number in range(0, whole, each):
        names = list(runs)
        random.Random(number).shuffle(names)  # noqa: S311 - an order
        for name in names:
            began = time.process_time()
            for _ in range(min(each, whole - number)):
                next(going[name])
            seconds[name] += time.process_time() - began
    return {
        "samples": runs["grouped"].feed.samples,
        "padding": {name: round(run.feed.padding(), 3) for name, run in runs.items()},
        "steps per second": {name: round(whole / taken, 2) for name, taken in seconds.items()},
        "by as drawn": {name: round(seconds["as drawn"] / taken, 2) for name, taken in seconds.items()},
    }


def _outcomes(folder: Path) -> dict[str, Any]:
    """Return the accuracy on held-out questions of each way and seed, and of the seeds' differences mean and 95 % interval."""
    files = {"train": folder / "questions.csv", "test": folder / "held.csv"}
    with (folder / "data" / "trec-train.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["question"], row["label"]) for row in csv.DictReader(file)]
    random.Random(0).shuffle(rows)  # noqa: S311 - a sample
    _write(files["train"], rows[:TRAINED])
    _write(files["test"], rows[TRAINED : TRAINED + HELD])
    found: dict[str, list[float]] = {"grouped": [], "as drawn": []}
    for seed in SEEDS:
        for name, values in found.items():
            spec = _spec(folder, files["train"], "text", 64, epochs=3, seed=seed, **HOW[name])
            spec["data"]["test"] = {"source": f"file://{files['test']}"}
            called = f"lengths-{name.replace(' ', '-')}-{seed}"
            row = record("lengths", f"{name}, seed {seed}", partial(trained, folder, called, spec))
            values.append(round(row["accuracy"], 4))
    apart = [one - other for one, other in zip(*found.values(), strict=True)]
    half = student_t.ppf(0.975, len(apart) - 1) * statistics.stdev(apart) / len(apart) ** 0.5
    mean = statistics.mean(apart)
    return {**found, "grouped - as drawn": round(mean, 4), "95 %": [round(mean - half, 4), round(mean + half, 4)]}


if __name__ == "__main__":
    main()
