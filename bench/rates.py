"""Forty jobs at rates from 1e-6 to 1, drawn by a seed: what becomes of those that destroy the model.

    python -m bench.rates [FILE]

Appends a row for each job to FILE (bench/rates.jsonl), after those that are there already, and prints the table of all. The second layer
of MiniLM and a new head on it train on 150 of TREC's questions, another 50 for validation, 4 epochs in batches of 8; head and backbone have the
same rate, drawn log-uniformly, and each job its own seed, which divides the questions too. Beside them jobs at a sane rate, and the
first ones that the guard has stopped again, without it. A job ends here where its export would begin.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from bench.support.turns import make_job
from examples.prepare import prepare
from unfreeze_api.contracts.resolved import ResolvedJob

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / ".demo"
SEED, JOBS, LOWEST, HIGHEST = 22, 40, -6.0, 0.0
SANE, SANE_JOBS, UNGUARDED_JOBS = 1e-3, 5, 5


def drawn() -> list[dict[str, Any]]:
    """Return the jobs: their kind, rate and seed."""
    draw = random.Random(SEED)  # noqa: S311 - no secret
    jobs = [{"kind": "drawn", "seed": n, "rate": 10 ** draw.uniform(LOWEST, HIGHEST)} for n in range(JOBS)]
    return jobs + [{"kind": "sane", "seed": 100 + n, "rate": SANE} for n in range(SANE_JOBS)]


def main() -> None:
    """Measure what is missing, and print the table."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "bench" / "rates.jsonl"
    logging.disable(logging.WARNING)
    if not (EXAMPLES / "models" / "minilm").is_dir():
        prepare(EXAMPLES)
    for asked in drawn():
        measure(file, asked)
    touched = [row for row in rows(file) if row["kind"] == "drawn" and row["rollbacks"]]
    for row in touched[:UNGUARDED_JOBS]:
        measure(file, {"kind": "unguarded", "seed": row["seed"], "rate": row["rate"]})
    print(table(rows(file)))


def rows(file: Path) -> list[dict[str, Any]]:
    """Return what was measured."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def measure(file: Path, asked: dict[str, Any]) -> None:
    """Add the row of a job, unless it is there."""
    if any(all(row[key] == value for key, value in asked.items()) for row in rows(file)):
        return
    with tempfile.TemporaryDirectory() as folder:
        row = asked | train_one(Path(folder), asked)
    with file.open("a") as out:
        out.write(json.dumps(row) + "\n")
    print(json.dumps(row), file=sys.stderr, flush=True)


def train_one(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Train a job up to its export; return how it ended."""
    from accelerate.state import AcceleratorState, PartialState

    from unfreeze_trainer.engines import open_engine
    from unfreeze_trainer.errors import JobError
    from unfreeze_trainer.tasks import open_task
    from unfreeze_trainer.training.loop import train
    from unfreeze_trainer.training.run import Run

    AcceleratorState._reset_state()  # noqa: SLF001 - it takes one engine per process for granted
    PartialState._reset_state()  # noqa: SLF001
    job, began, reason = job_of(folder, **asked), time.process_time(), "Succeeded"
    task = open_task(job)
    run = Run(job, task, task.build_model(), open_engine(job), None)
    try:
        train(run)
        run.rollbacks.require_useful()
    except JobError as error:
        reason = error.reason
    finally:
        run.saver.close()
    best = run.state.best
    worth = best.usefulness if best else None
    run.engine.end()
    return {
        "ended": reason,
        "useful": bool(worth and worth.better),
        "accuracy": round(best.value, 4) if best else None,
        "majority": round(worth.majority, 4) if worth else None,
        "rollbacks": [[one.step, one.to] for one in run.state.rollbacks],
        "burst": round(run.state.course.burst, 2),
        "seconds": round(time.process_time() - began, 1),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip(),
    }


@cache
def cut(layers: int = 2, examples: Path = EXAMPLES) -> Path:
    """Return the folder of a MiniLM without its upper layers."""
    from safetensors.torch import load_file, save_file

    folder = Path(tempfile.mkdtemp()) / "model"
    whole = examples / "models" / "minilm"
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    config = json.loads((whole / "config.json").read_text()) | {"num_hidden_layers": layers}
    (folder / "config.json").write_text(json.dumps(config))
    kept = {
        name: tensor
        for name, tensor in load_file(whole / "model.safetensors").items()
        if not (found := re.search(r"layer\.(\d+)\.", name)) or int(found[1]) < layers
    }
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def job_of(folder: Path, *, kind: str, seed: int, rate: float) -> ResolvedJob:
    """Return a job whose run folder lies in a folder."""
    data = folder / "rows.csv"
    with (EXAMPLES / "data" / "trec-train-1000.csv").open() as source:
        data.write_text("".join(itertools.islice(source, 201)))
    spec = {
        "model": {"source": f"file://{cut()}"},
        "task": {"type": "TextClassification", "textClassification": {"maxLength": 32}},
        "data": {
            "train": {"source": f"file://{data}", "columns": {"text": "question"}},
            "validation": {"fraction": 0.25},
        },
        "strategy": {
            "type": "PartialFineTuning",
            "partialFineTuning": {"lastBlocks": 1},
            "learningRate": {"head": rate, "backbone": rate},
        },
        "training": {"epochs": 4, "batchSize": 8, "seed": seed},
    }
    job = make_job(f"{folder}/run", **spec)
    if kind == "unguarded":
        job = job.model_copy(update={"semantics": job.semantics.model_copy(update={"rates": "Kept"})})
    return job


def table(found: list[dict[str, Any]]) -> str:
    """Return the table of all jobs, by decades of the rate, in Markdown."""
    lines = ["| rates | jobs | went back | ended | accuracy |", "|---|---|---|---|---|"]
    for name, group in _groups(found):
        back = [len(row["rollbacks"]) for row in group if row["rollbacks"]]
        ended: dict[str, int] = {}
        for row in group:
            word = (
                row["ended"] if row["ended"] != "Succeeded" else "useful" if row["useful"] else "NoBetterThanMajority"
            )
            ended[word] = ended.get(word, 0) + 1
        values = [row["accuracy"] for row in group if row["ended"] == "Succeeded"]
        spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
        accuracy = f"{mean(values):.2f}{spread}" if values else "\u2013"
        once = f"{len(back)} ({back.count(1)} once)" if back else "0"
        lines.append(
            f"| {name} | {len(group)} | {once} | {', '.join(f'{n} {w}' for w, n in ended.items())} | {accuracy} |"
        )
    return "\n".join(lines)


def _groups(found: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    decades = sorted({math.floor(math.log10(row["rate"])) for row in found if row["kind"] == "drawn"})
    for decade in decades:
        group = [row for row in found if row["kind"] == "drawn" and math.floor(math.log10(row["rate"])) == decade]
        yield f"1e{decade} to 1e{decade + 1}", group
    for kind, name in (
        ("sane", f"{SANE:g}, other seeds"),
        ("unguarded", "the first that went back, without the guard"),
    ):
        if group := [row for row in found if row["kind"] == kind]:
            yield name, group


if __name__ == "__main__":
    main()
