"""Learning rates that a range test chooses, beside the best of a sweep of rates, on several small sets.

    python -m bench.auto_rates FOLDER [SET...]

Needs what `examples/prepare.py` writes for trec, images and pairs. For each set and seed: six jobs at head rates from 3e-4 to 1e-1, the
backbone's a tenth of them (of adapters the same), and one with `learningRate.rates: Auto`. A job ends where its export would begin. Adds a row
for each job to bench/results/auto_rates.jsonl, after those that are there already, and prints the table: the best validation value of each
sweep (of the rate that is the best in the mean over seeds, and of the best of each seed, which chance flatters), that of the usual rates,
and Auto's; steps of Auto's tests as a share of those of the sweep.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from bench.rates import cut
from bench.support.turns import make_job
from examples.prepare import prepare, prepare_images, prepare_pairs
from unfreeze_api.contracts.resolved import ResolvedJob

ROOT = Path(__file__).parents[1]
FILE = ROOT / "bench" / "results" / "auto_rates.jsonl"
SWEEP = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
USUAL = 1e-3
SEEDS = 3
Row = dict[str, Any]

_QUESTIONS: Row = {"task": {"type": "TextClassification", "textClassification": {"maxLength": 32}}}
_TEXTS: Row = {"training": {"epochs": 4, "batchSize": 16}}
SETS: dict[str, Row] = {
    "questions, top": {
        **_QUESTIONS,
        "rows": 400,
        "strategy": {"type": "PartialFineTuning", "partialFineTuning": {"lastBlocks": 1}},
        "training": {"epochs": 5, "batchSize": 16},
    },
    "questions, head": {
        **_QUESTIONS,
        "rows": 600,
        "strategy": {"type": "FeatureExtraction"},
        "training": {"epochs": 8, "batchSize": 16},
    },
    "questions, LoRA": {
        **_QUESTIONS,
        **_TEXTS,
        "rows": 400,
        "strategy": {"type": "FullFineTuning"},
        "adapter": {"type": "LoRA", "lora": {"r": 8}},
    },
    "few questions, all": {
        **_QUESTIONS,
        "rows": 320,
        "strategy": {"type": "FullFineTuning"},
        "training": {"epochs": 3, "batchSize": 32},
    },
    "few questions, gradual": {
        **_QUESTIONS,
        "rows": 200,
        "strategy": {"type": "GradualUnfreezing"},
        "training": {"epochs": 10, "batchSize": 8},
    },
    "digits, all": {
        "pictures": 60,
        "task": {"type": "ImageClassification", "imageClassification": {"imageSize": 32, "augmentation": "None"}},
        "strategy": {"type": "FullFineTuning"},
        "training": {"epochs": 4, "batchSize": 16},
    },
    "pairs, all": {
        "task": {"type": "TextRegression", "textRegression": {"maxLength": 64}},
        "strategy": {"type": "FullFineTuning"},
        "training": {"epochs": 6, "batchSize": 16, "metric": "pearson"},
    },
}


def main() -> None:
    """Measure what is missing, and print the table."""
    folder, *named = sys.argv[1:]
    logging.disable(logging.WARNING)
    place = Path(folder).resolve()
    prepare(place)
    prepare_images(place)
    prepare_pairs(place)
    for seed, name in itertools.product(range(SEEDS), named or SETS):
        for rate in ("Auto", *SWEEP):
            measure(place, {"set": name, "seed": seed, "rate": rate})
    print(table(rows()))


def rows() -> list[Row]:
    """Return what was measured."""
    return [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.is_file() else []


def measure(place: Path, asked: Row) -> None:
    """Add the row of a job, unless it is there."""
    if any(all(row[key] == value for key, value in asked.items()) for row in rows()):
        return
    with tempfile.TemporaryDirectory() as folder:
        row = asked | _trained(job_of(place, Path(folder), asked))
    command = f"python -m bench.auto_rates {' '.join(['FOLDER', *sys.argv[2:]])}"
    asks = ["git", "log", "-1", "--format=%h", "--abbrev=7", "--", "crds", "trainer", "bench/*.py"]
    commit = subprocess.run(asks, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    with FILE.open("a") as out:
        out.write(json.dumps(row | {"commit": commit, "command": command}) + "\n")
    print(json.dumps(row), file=sys.stderr, flush=True)


def job_of(place: Path, folder: Path, asked: Row) -> ResolvedJob:
    """Return a job whose run folder lies in a folder."""
    spec = {key: value for key, value in SETS[asked["set"]].items() if key not in ("rows", "pictures")}
    found, data = SETS[asked["set"]], folder / "rows.csv"
    if "rows" in found:
        with (place / "data" / "trec-train.csv").open() as source:
            data.write_text("".join(itertools.islice(source, found["rows"] + 1)))
        model, train = cut(examples=place), _file(data, {"text": "question"})
    elif "pictures" in found:
        for label in (place / "data" / "digits" / "train").iterdir():
            (folder / "pictures" / label.name).mkdir(parents=True)
            for file in sorted(label.iterdir())[: found["pictures"]]:
                (folder / "pictures" / label.name / file.name).write_bytes(file.read_bytes())
        model, train = place / "models" / "efficientnet-lite0", _file(folder / "pictures")
    else:
        columns = {"text": "one", "textPair": "other", "value": "similarity"}
        model, train = cut(examples=place), _file(place / "data" / "lee-train.csv", columns)
    rate = asked["rate"]
    given = {"rates": "Auto"} if rate == "Auto" else {"head": rate, "backbone": rate / 10}
    if rate != "Auto" and (spec["strategy"]["type"] == "FeatureExtraction" or "adapter" in spec):
        del given["backbone"]
    spec["strategy"] = spec["strategy"] | {"learningRate": given}
    spec["training"] = spec["training"] | {"seed": asked["seed"]}
    held_out: Row = {"validation": {"fraction": 0.25}}
    if "pairs" in asked["set"]:
        held_out = {"validation": _file(place / "data" / "lee-validation.csv")}
    return make_job(
        f"{folder}/run", **{**spec, "model": {"source": f"file://{model}"}, "data": {"train": train, **held_out}}
    )


def _file(path: Path, columns: Row | None = None) -> Row:
    return {"source": f"file://{path}"} | ({"columns": columns} if columns else {})


def _trained(job: ResolvedJob) -> Row:
    """Train a job up to its export; return how it ended."""
    from accelerate.state import AcceleratorState, PartialState

    from unfreeze_trainer.engines import open_engine
    from unfreeze_trainer.errors import JobError
    from unfreeze_trainer.tasks import open_task
    from unfreeze_trainer.training.loop import train
    from unfreeze_trainer.training.run import Run

    AcceleratorState._reset_state()  # noqa: SLF001 - it takes one engine per process for granted
    PartialState._reset_state()  # noqa: SLF001
    began, reason = time.process_time(), "Succeeded"
    task = open_task(job)
    run = Run(job, task, task.build_model(), open_engine(job), None)
    tested = time.process_time() - began
    try:
        train(run)
    except JobError as error:
        reason = error.reason
    finally:
        run.saver.close()
    run.engine.end()
    decision = next((one for one in run.state.decisions if one.type == "Rates"), None)
    said = {one.name: one.value for one in decision.evidence} if decision else {}
    found = run.job.strategy.learning_rate
    best = run.state.best
    return {
        "ended": reason,
        "value": round(best.value, 4) if best else None,
        "head": found.head,
        "backbone": found.backbone,
        "steps": run.plan.total_steps,
        "testSteps": said.get("steps of the range tests", 0),
        "rollbacks": len(run.state.rollbacks),
        "seconds": round(time.process_time() - began, 1),
        "secondsBefore": round(tested, 1),
        "why": decision.message if decision else "",
    }


def table(found: list[Row]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| set | seeds | usual rates | best of the sweep | best of each seed | Auto | rates that Auto took | cost |"
    ]
    lines.append("|---" * 8 + "|")
    for name in dict.fromkeys(row["set"] for row in found):
        values: dict[Any, list[float]] = defaultdict(list)
        group = [row for row in found if row["set"] == name]
        whole = {seed: {row["rate"] for row in group if row["seed"] == seed} for seed in {row["seed"] for row in group}}
        group = [row for row in group if whole[row["seed"]] == {"Auto", *SWEEP}]
        for row in group:
            lost = row["value"] is None or row["ended"] != "Succeeded"
            values[row["rate"]].append(0.0 if lost else row["value"])
        swept = {rate: mean(each) for rate, each in values.items() if rate != "Auto"}
        autos = [row for row in group if row["rate"] == "Auto"]
        if not swept or not autos:
            continue
        top = max(swept, key=lambda rate: swept[rate])
        seeds = {row["seed"] for row in group}
        lucky = [
            max(row["value"] or 0 for row in group if row["seed"] == seed and row["rate"] != "Auto") for seed in seeds
        ]
        cost = sum(row["testSteps"] for row in autos) / sum(row["steps"] for row in group if row["rate"] != "Auto")
        took = ", ".join(f"{row['head']:.2g}/{row['backbone']:.2g}" for row in autos)
        told = [_spread(values[USUAL]), f"{_spread(values[top])} at {top:g}", _spread(lucky), _spread(values["Auto"])]
        lines.append(f"| {name} | {len(seeds)} | {' | '.join(told)} | {took} | {cost:.1%} |".replace("%", " %"))
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
