"""How soon the first rungs of `strategy.type: Auto` are over: a classical model, and a probe of the frozen model.

    python -m bench.first_rungs [ROWS [ROUNDS]]

Prints JSON: seconds of processor time, of one thread, in turns. `rungs` is a worker from its start to the answer of the first gate: it reads
the data, fits the classical model, computes what the head is given of each of ROWS (1,000) of TREC's questions, a fifth of them held out, finds the head,
evaluates and decides. `floor` is a process that imports transformers, loads the model and reads each question once. Goal: 1.5 times the floor. The raw
rows go into bench/results/first_rungs.jsonl.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.features import EXAMPLES, FLOOR, script
from bench.support.outcomes import RESULTS, commit
from examples.prepare import prepare
from unfreeze_api.apiserver.validate import load_job
from unfreeze_api.resolve import resolve

WORKER = """
import json, os, sys
from unfreeze_trainer.training import ladder, work
marks = {}
def mark(name):
    marks[name] = round(sum(os.times()[:4]), 3)
def wrapped(kind, name, before, after):
    called = getattr(kind, name)
    def wrapper(self, *arguments, **named):
        before and mark(before)
        found = called(self, *arguments, **named)
        mark(after)
        if name == "closed":
            json.dump(marks, open(sys.argv[1], "w"))
            os._exit(0)
        return found
    setattr(kind, name, wrapper)
wrapped(ladder.Ladder, "compare", "start, data, model", "classical model")
wrapped(work.Work, "solve", None, "pass over the data, solved head")
wrapped(ladder.Ladder, "closed", None, "evaluation, gate")
from unfreeze_trainer import worker
sys.argv = sys.argv[:1] + sys.argv[2:]
mark("imports")
worker.main()
"""


def main() -> None:
    """Measure and print."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3  # noqa: PLR2004
    if not (EXAMPLES / "models" / "minilm").is_dir():
        prepare(EXAMPLES)
    raw: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "rows.csv")
        with (EXAMPLES / "data" / "trec-train.csv").open() as source:
            data.write_text("".join(itertools.islice(source, rows + 1)))
        for number in range(rounds):
            floor = script(FLOOR, str(EXAMPLES / "models" / "minilm"), str(data))
            marks = _rungs(Path(folder, str(number)), data)
            taken = list(marks.values())[-1]
            raw.append({"rows": rows, "turn": number, "floor": round(floor, 2), "rungs": taken, "marks": marks})
            print(json.dumps(raw[-1]), file=sys.stderr, flush=True)
    with (RESULTS / "first_rungs.jsonl").open("a") as file:
        file.writelines(json.dumps(row | {"commit": commit()}) + "\n" for row in raw)
    ratio = statistics.median(row["rungs"] / row["floor"] for row in raw)
    print(json.dumps({"benchmark": "first_rungs", "rows": rows, "turns": rounds, "rungs/floor": round(ratio, 2)}))


def _rungs(run: Path, data: Path) -> dict[str, float]:
    """Return processor time of a worker at some moments, the last of which is its first gate."""
    spec = {
        "model": {"source": f"file://{EXAMPLES}/models/minilm"},
        "task": {"type": "TextClassification", "textClassification": {"maxLength": 64}},
        "data": {
            "train": {"source": f"file://{data}", "columns": {"text": "question"}},
            "validation": {"fraction": 0.2},
        },
        "strategy": {"type": "Auto"},
        "training": {"epochs": 3, "batchSize": 32, "seed": 0},
        "output": {"destination": f"file://{run}"},
    }
    manifest = {
        "apiVersion": "unfreeze.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "bench"},
        "spec": spec,
    }
    file, out = run.with_suffix(".json"), run.with_suffix(".marks")
    file.write_text(resolve("bench", "default", load_job(manifest).spec, rendezvous_host="127.0.0.1").to_json())
    os.environ["UNFREEZE_JOB"] = str(file)
    script(WORKER, str(out))
    found: dict[str, float] = json.loads(out.read_text())
    return found


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
