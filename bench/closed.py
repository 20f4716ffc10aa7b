"""A head by `solver: Closed`, whole jobs from a new process to the export, against scikit-learn on features of a plain loop.

    python -m bench.closed [ROWS [ROUNDS]]

Prints JSON: seconds of processor time (user and system, with those of processes that it starts), in turns, and accuracy on the
same test questions. MiniLM on ROWS of TREC's questions (all of them by default), at most 64 tokens. `scikit-learn` is a process that
imports transformers and scikit-learn, computes the mean of the tokens' vectors of each question in batches of 32, and chooses
the strength by LogisticRegressionCV with 5 folds on standardised features, 10 strengths as it has them by default; its model is not
exported. `steps` is the same job as Closed by 20 epochs of steps. The raw rows go into bench/results/closed.jsonl.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.features import EXAMPLES, ROOT, of_worker, script
from examples.prepare import prepare

RESULTS = ROOT / "bench" / "results" / "closed.jsonl"
SKLEARN = """
import csv, json, sys, torch
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel, AutoTokenizer
model, data, test, out = sys.argv[1:5]
tokenizer, net = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
def read(file):
    rows = list(csv.DictReader(open(file)))
    texts, found = [row["question"] for row in rows], []
    with torch.no_grad():
        for low in range(0, len(texts), 32):
            batch = tokenizer(texts[low:low + 32], truncation=True, max_length=64, padding=True, return_tensors="pt")
            mask = batch["attention_mask"][:, :, None]
            found.append((net(**batch).last_hidden_state * mask).sum(1) / mask.sum(1))
    return torch.cat(found).numpy(), [row["label"] for row in rows]
x, y = read(data)
held = len(x) // 10
fitted = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=10, cv=5, max_iter=1000)).fit(x[held:], y[held:])
fitted.score(x[:held], y[:held])
json.dump({"accuracy": fitted.score(*read(test))}, open(out, "w"))
"""


def main() -> None:
    """Measure and print."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else None
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 1  # noqa: PLR2004
    if not (EXAMPLES / "models" / "minilm").is_dir():
        prepare(EXAMPLES)
    model, test = str(EXAMPLES / "models" / "minilm"), str(EXAMPLES / "data" / "trec-test.csv")
    raw: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "rows.csv")
        with (EXAMPLES / "data" / "trec-train.csv").open() as source:
            data.write_text("".join(itertools.islice(source, rows and rows + 1)))
        count = len(data.read_text().splitlines()) - 1
        contenders: dict[str, Callable[[Path], tuple[float, float]]] = {
            "closed": partial(job, data, {"solver": "Closed"}, 1),
            "scikit-learn": lambda run: learned(run, model, str(data), test),
            "steps": partial(job, data, {"learningRate": {"head": 1e-2}}, 20),
        }
        for number in range(rounds):
            for name, measure in contenders.items():
                seconds, accuracy = measure(Path(folder, f"{number}-{name}"))
                raw.append({"contender": name, "rows": count, "turn": number, "seconds": seconds, "accuracy": accuracy})
                print(f"{name}: {seconds:.1f} s, accuracy {accuracy:.4f}", file=sys.stderr)
    with RESULTS.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in raw)
    taken = {name: [row["seconds"] for row in raw if row["contender"] == name] for name in contenders}
    turns = {name: [seconds / own for seconds, own in zip(taken[name], taken["closed"], strict=True)] for name in taken}
    results = {
        name: {
            "seconds": round(statistics.median(taken[name]), 1),
            "of_closed": round(statistics.median(turns[name]), 2),
            "accuracy": round(statistics.median(row["accuracy"] for row in raw if row["contender"] == name), 4),
        }
        for name in contenders
    }
    print(json.dumps({"benchmark": "closed", "rows": count, "turns": rounds} | results, indent=1))


def job(data: Path, strategy: dict[str, Any], epochs: int, run: Path) -> tuple[float, float]:
    """Return the processor time of a job from its worker's start to its export, and its accuracy on the test questions."""
    spec = {
        "model": {"source": f"file://{EXAMPLES}/models/minilm"},
        "task": {"type": "TextClassification", "textClassification": {"maxLength": 64}},
        "data": {
            "train": {"source": f"file://{data}", "columns": {"text": "question"}},
            "validation": {"fraction": 0.1},
            "test": {"source": f"file://{EXAMPLES}/data/trec-test.csv"},
        },
        "strategy": {"type": "FeatureExtraction", **strategy},
        "training": {"epochs": epochs, "batchSize": 32, "seed": 0},
    }
    seconds = of_worker(spec, run)
    return seconds, json.loads((run / "report.json").read_text())["results"]["test"]["accuracy"]


def learned(run: Path, *arguments: str) -> tuple[float, float]:
    """Return the processor time of scikit-learn's process, and its accuracy on the test questions."""
    seconds = script(SKLEARN, *arguments, str(run))
    return seconds, json.loads(run.read_text())["accuracy"]


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
